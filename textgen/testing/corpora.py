"""The contract of corpora."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Unpack

import attrs

from textgen.contracts.checks import FAILURES, read_pieces
from textgen.documents import DOCUMENT_END
from textgen.errors import ContractError, CorpusError
from textgen.plugin.component import Component
from textgen.testing.outcomes import Outcome, Skip, Violation
from textgen.testing.suite import Given, Suite, check
from textgen.testing.watching import later, watched

__tracebackhide__ = True  # pytest shows the test and the code of the component

_LARGEST_PIECE: Final = 16_000_000
_LARGEST_TEXT: Final = 50_000_000  # characters that are read of a corpus
_SHORT: Final = 1_000_000  # characters of a text that is read several times
_TIMES: Final = 5
_CODE: Final = (".py", ".pyc", ".so", ".pyd")


def check_corpus(
    component: Component,
    *,
    unreadable: Mapping[str, Any] | None = None,
    **given: Unpack[Given],
) -> tuple[Outcome, ...]:
    """Hold a corpus to its contract, by its first 50 million characters. Raises ContractFailure.

    unreadable  options that name a text which cannot be read, to see the error
    """
    return check(CorpusSuite, component, given, unreadable=unreadable)


@attrs.frozen
class CorpusSuite(Suite):
    """The checks of a corpus. A text that is not available on this machine is a reason to skip."""

    kind: ClassVar[str] = "corpus"
    unreadable: Mapping[str, Any] | None = None

    def new(self, **context: Any) -> Any:
        try:
            return self.subject.build(self.subject.context(**context))
        except CorpusError as error:
            raise Skip(f"its text is not available here: {error}") from error

    def pieces(self) -> None:
        for piece in self._read(self.new()):
            if _size(piece) > _LARGEST_PIECE:
                raise Violation(f"a piece has {_size(piece):,} characters")

    def text(self) -> None:
        characters = 0
        for piece in self._read(self.new()):
            if piece is DOCUMENT_END:
                continue
            characters += len(piece)
            try:
                piece.encode()
            except UnicodeEncodeError as error:
                lone = f"U+{ord(piece[error.start]):04X}"
                seen = f"it gave the lone surrogate {lone}, which is no character"
                raise Violation(seen) from error
        if not characters:
            raise Violation("it gave no character")

    def again(self) -> None:
        corpus = self.new()
        first = self._digest(corpus)
        for which, other in (
            ("a second time", corpus),
            ("from a corpus built anew", self.new()),
            *[("a third time or later", corpus)] * (_TIMES if self._is_short(corpus) else 0),
            ("at another time of day", corpus),
        ):
            with later() if "day" in which else contextlib.nullcontext():
                again = self._digest(other)
            if again == hashlib.sha256().hexdigest():
                raise Violation(f"read() gave no text {which}; is its iterator used up?")
            if again != first:
                raise Violation(f"read() gave another text {which}")

    def sources(self) -> None:
        corpus = self.new()
        if not hasattr(corpus, "sources"):
            return
        try:
            first, second = list(corpus.sources()), list(corpus.sources())
        except CorpusError as error:
            raise Skip(f"its files are not available here: {error}") from error
        for path in first or [None]:
            if not isinstance(path, str | Path) or not Path(path).is_file():
                raise Violation(f"sources() gave {path!r}, no file")
        if first != second:
            raise Violation("sources() gave other files a second time")
        with watched() as deeds:
            self._digest(corpus)
        for path in deeds.read:  # but for code, and records beside a file
            is_named = any(Path(named).stem.startswith(path.stem) for named in first)
            if not is_named and path.suffix not in _CODE:
                raise Violation(f"read() also reads {path}, which sources() does not name")
        if self._digest(self.new(seed=1)) != self._digest(corpus):
            raise Violation("it gave another text for another seed, and yet has sources()")

    def build(self) -> None:
        with watched() as deeds:
            self.new()
        if done := deeds.connected or deeds.written:
            raise Violation(f"it {'connected to' if deeds.connected else 'wrote'} {done[0]}")

    def readers(self) -> None:
        corpus = self.new()
        alone, first = self._digest(corpus), self._read(corpus)
        begun = list(itertools.islice(first, 1))
        if self._digest(corpus) != alone:
            raise Violation("it gave another text while a first reader was not done")
        if _digest_of(itertools.chain(begun, first)) != alone:
            raise Violation("a reader got another text after a second one had read")

    def errors(self) -> None:
        if self.unreadable is None:
            raise Skip("no options were given that name an unreadable text (argument unreadable)")
        unreadable = attrs.evolve(self.subject, options=self.unreadable)
        unreadable.config()  # options that do not fit are the caller's fault
        try:
            for _ in unreadable.build().read():
                pass
        except CorpusError as error:
            if not str(error):
                raise Violation("the CorpusError says nothing") from error
        except FAILURES as error:
            raise Violation(f"it raised {type(error).__name__}: {error}") from error
        else:
            raise Violation("it raised nothing")

    def _read(self, corpus: Any) -> Iterator[Any]:
        """The pieces, until there are enough."""
        read = 0
        try:
            for piece in read_pieces(corpus, self.subject.offer):
                yield piece
                read += _size(piece)
                if read >= _LARGEST_TEXT:
                    return
        except ContractError as error:
            raise Violation(error.cause, "corpus-pieces") from error
        except CorpusError as error:
            raise Skip(f"its text is not available here: {error}") from error

    def _is_short(self, corpus: Any) -> bool:
        return sum(map(_size, self._read(corpus))) < _SHORT

    def _digest(self, corpus: Any) -> str:
        return _digest_of(self._read(corpus))


def _digest_of(pieces: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        is_end = piece is DOCUMENT_END
        digest.update(b"\xff" if is_end else piece.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _size(piece: Any) -> int:
    return 1 if piece is DOCUMENT_END else len(piece)
