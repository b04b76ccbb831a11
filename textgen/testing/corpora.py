"""The contract of corpora."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.contracts.checks import read_pieces
from textgen.documents import DOCUMENT_END
from textgen.errors import CorpusError
from textgen.testing.outcomes import Skip, Violation
from textgen.testing.process import watched
from textgen.testing.suite import Suite

__tracebackhide__ = True  # pytest shows the test and the code of the component

_LARGEST_PIECE: Final = 16_000_000
_LARGEST_TEXT: Final = 50_000_000  # characters that are read of a corpus
_MAX_REREAD_CHARACTERS: Final = 1_000_000  # characters of a text that is read several times
_TIMES: Final = 5
_CODE: Final = (".py", ".pyc", ".so", ".pyd")


@attrs.frozen(kw_only=True)
class CorpusSuite(Suite):
    """The checks of a corpus, by its first 50 million characters. A text that is not available on
    this machine is a reason to skip.
    """

    def corpus_pieces(self) -> None:
        characters = 0
        with _available():
            if isinstance(self.new().read(), str):
                raise Violation("read() gave a str, which is one piece for each of its characters")
        for piece in self._read(self.new()):
            if piece is DOCUMENT_END:
                continue
            characters += len(piece)
            if len(piece) > _LARGEST_PIECE:
                raise Violation(f"a piece has {len(piece):,} characters")
            try:
                piece.encode()
            except UnicodeEncodeError as error:
                raise Violation(f"it gave a surrogate, U+{ord(piece[error.start]):04X}") from error
        if not characters:
            raise Violation("it gave no character")

    def corpus_again(self) -> None:
        corpus = self.new()
        size = sum(len(piece) for piece in self._read(corpus) if isinstance(piece, str))
        first = self._digest(corpus)
        self._check_same(first, corpus, "a second time")
        self._check_same(first, self.new(), "from a corpus built anew")
        if size < _MAX_REREAD_CHARACTERS:
            for _ in range(_TIMES):
                self._check_same(first, corpus, "a third time or later")

    def _check_same(self, first: str, corpus: Any, when: str) -> None:
        again = self._digest(corpus)
        if again == _hash([]):
            raise Violation(f"read() gave no text {when}; is its iterator used up?")
        if again != first:
            raise Violation(f"read() gave another text {when}")

    def corpus_sources(self) -> None:
        corpus = self.new()
        if not hasattr(corpus, "sources"):
            return
        with _available():
            named = [*corpus.sources()]
        for path in named or [None]:
            if not isinstance(path, str | Path) or not Path(path).is_file():
                raise Violation(f"sources() gave {path!r}, no file")
        with watched() as deeds:
            digest = self._digest(corpus)
        for path in deeds.read:  # but for code, and records beside a file
            is_named = any(Path(each).stem.startswith(path.stem) for each in named)
            if not is_named and path.suffix not in _CODE:
                raise Violation(f"read() also reads {path}, which sources() does not name")
        if self._digest(self.new(seed=1)) != digest:
            raise Violation("it gave another text for another seed, and yet has sources()")

    def corpus_build(self) -> None:
        with watched() as deeds:
            self.new()
        if deeds.connected or deeds.written:
            what = "connected to" if deeds.connected else "wrote"
            raise Violation(f"it {what} {(deeds.connected or deeds.written)[0]}")

    def corpus_readers(self) -> None:
        corpus = self.new()
        alone, first = self._digest(corpus), self._read(corpus)
        begun = [*itertools.islice(first, 1)]
        if self._digest(corpus) != alone or _hash([*begun, *first]) != alone:
            raise Violation("a reader got another text while a second one read")

    def _read(self, corpus: Any) -> Iterator[Any]:
        """The pieces, until there are enough."""
        read = 0
        with _available():
            for piece in read_pieces(corpus, self.offer):
                yield piece
                read += 1 if piece is DOCUMENT_END else len(piece)
                if read >= _LARGEST_TEXT:
                    return

    def _digest(self, corpus: Any) -> str:
        return _hash(self._read(corpus))


def _hash(pieces: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        is_end = piece is DOCUMENT_END
        digest.update(b"\xff" if is_end else piece.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@contextlib.contextmanager
def _available() -> Iterator[None]:
    """Raise Skip for a CorpusError."""
    try:
        yield
    except CorpusError as error:
        raise Skip(f"its text is not available here: {error}") from error
