"""The contract of corpora."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.contracts.checks import FAILURES, read_pieces
from textgen.documents import DOCUMENT_END
from textgen.errors import ContractError, CorpusError
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.testing.environment import Subject, subject
from textgen.testing.general import general_checks
from textgen.testing.outcomes import Check, Outcome, Skip, Violation, raise_first, run_checks
from textgen.testing.time_limit import TIME_LIMIT

__tracebackhide__ = True  # pytest shows the test and the code of the component

_LARGEST_PIECE: Final = 16_000_000
_UNREAD: Final = "its text is not available here: "
_LARGEST_TEXT: Final = 50_000_000  # characters that are read of a corpus


def check_corpus(
    component: Component,
    *,
    options: Mapping[str, Any] | None = None,
    unreadable: Mapping[str, Any] | None = None,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a corpus to its contract, by its first 50 million characters. Raises ContractFailure.

    options     its TOML table; what has no default must be in it
    unreadable  options that name a text which cannot be read, to see the error
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("corpus", component, options, plugin, plugins, time_limit=time_limit) as made:
        return raise_first(run_checks(corpus_checks(made, unreadable), made))


def corpus_checks(subject: Subject, unreadable: Mapping[str, Any] | None = None) -> list[Check]:
    """The suite. A text that is not available on this machine is a reason to skip."""
    suite = _Suite(subject, unreadable)
    return [
        *general_checks(subject, suite.build),
        Check("corpus-pieces", suite.pieces),
        Check("corpus-text", suite.text),
        Check("corpus-again", suite.again),
        Check("corpus-sources", suite.sources),
        Check("corpus-readers", suite.readers),
        Check("corpus-errors", suite.errors),
    ]


@attrs.frozen
class _Suite:
    subject: Subject
    unreadable: Mapping[str, Any] | None

    def build(self) -> Any:
        try:
            return self.subject.build()
        except CorpusError as error:
            raise Skip(f"{_UNREAD}{error}") from error

    def pieces(self) -> None:
        for piece in self._read(self.build()):
            if _size(piece) > _LARGEST_PIECE:
                raise Violation(f"a piece has {_size(piece):,} characters")

    def text(self) -> None:
        characters = 0
        for piece in self._read(self.build()):
            if piece is DOCUMENT_END:
                continue
            characters += len(piece)
            try:
                piece.encode()
            except UnicodeEncodeError as error:
                lone = f"U+{ord(piece[error.start]):04X}"
                raise Violation(
                    f"it gave the lone surrogate {lone}, which is no character"
                ) from error
        if not characters:
            raise Violation("it gave no character")

    def again(self) -> None:
        corpus = self.build()
        first = self._digest(corpus)
        for which, other in (("a second time", corpus), ("from a corpus built anew", self.build())):
            again = self._digest(other)
            if again == hashlib.sha256().hexdigest():
                raise Violation(f"read() gave no text {which}; is its iterator used up?")
            if again != first:
                raise Violation(f"read() gave another text {which}")

    def sources(self) -> None:
        corpus = self.build()
        if not hasattr(corpus, "sources"):
            return
        try:
            first, second = list(corpus.sources()), list(corpus.sources())
        except CorpusError as error:
            raise Skip(f"its files are not available here: {error}") from error
        odd = [
            path for path in first if not isinstance(path, str | Path) or not Path(path).is_file()
        ]
        if odd or not first:
            raise Violation(f"sources() gave {odd[0]!r}, no file" if odd else "it named no file")
        if first != second:
            raise Violation("sources() gave other files a second time")
        if self._digest(self.subject.build(self.subject.context(seed=1))) != self._digest(corpus):
            raise Violation("it gave another text for another seed, and yet has sources()")

    def readers(self) -> None:
        corpus = self.build()
        alone, first = self._digest(corpus), self._read(corpus)
        begun = next(first, "")
        if self._digest(corpus) != alone:
            raise Violation("it gave another text while a first reader was not done")
        if self._digest_of(itertools.chain([begun], first)) != alone:
            raise Violation("a reader got another text after a second one had read")

    def errors(self) -> None:
        if self.unreadable is None:
            raise Skip("no options were given that name an unreadable text (argument unreadable)")
        unreadable = attrs.evolve(self.subject, options=self.unreadable)
        config = unreadable.config()
        try:
            corpus = unreadable.component.build(config, unreadable.context())
            for _ in corpus.read():
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
            raise Skip(f"{_UNREAD}{error}") from error

    def _digest(self, corpus: Any) -> str:
        return self._digest_of(self._read(corpus))

    def _digest_of(self, pieces: Iterable[Any]) -> str:
        digest = hashlib.sha256()
        for piece in pieces:
            is_end = piece is DOCUMENT_END
            digest.update(b"\xff" if is_end else piece.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _size(piece: Any) -> int:
    return 1 if piece is DOCUMENT_END else len(piece)
