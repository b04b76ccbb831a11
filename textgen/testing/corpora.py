"""The contract of corpora."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.contracts.checks import FAILURES
from textgen.documents import DOCUMENT_END
from textgen.errors import CorpusError
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.testing.environment import Subject, close, subject
from textgen.testing.examples import in_threads
from textgen.testing.general import calls_check, general_checks
from textgen.testing.other_process import process_check
from textgen.testing.outcomes import (
    UNREAD,
    Check,
    Outcome,
    Skip,
    Violation,
    raise_first,
    run_checks,
)
from textgen.testing.time_limit import TIME_LIMIT, TimeUpError, within

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

_LARGEST_PIECE: Final = 16_000_000
_LARGEST_TEXT: Final = 50_000_000  # characters that are read of a corpus at most, but once
_PAUSE: Final = 5.0  # seconds without a piece that are no reading any more
_NOTHING: Final = hashlib.sha256().hexdigest()
_WITHOUT_END: Final = 2_000_000_000  # characters of a corpus that is taken to have no end


def check_corpus(
    component: Component,
    *,
    options: Mapping[str, Any] | None = None,
    unreadable: Mapping[str, Any] | None = None,
    largest: int = _WITHOUT_END,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a corpus to its contract, by its first 50 million characters. Raises ContractFailure.

    options     its TOML table; what has no default must be in it
    unreadable  options that name a text which cannot be read, to see the error
    largest     characters; a corpus that has not ended after them is taken to have no end
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("corpus", component, options, plugin, plugins, time_limit=time_limit) as made:
        return raise_first(run_checks(corpus_checks(made, unreadable, largest), made))


def corpus_checks(
    subject: Subject, unreadable: Mapping[str, Any] | None = None, largest: int = _WITHOUT_END
) -> list[Check]:
    """The suite. A text that is not to be had on this machine is a reason to skip."""
    suite = _Suite(subject, unreadable, largest)
    return [
        *general_checks(subject, suite.build),
        Check("corpus-pieces", suite.first_piece, trial=True),
        Check("corpus-pieces", suite.pieces),
        Check("corpus-ends", suite.ends, after=("corpus-pieces",), timed=False),
        calls_check(suite.calls),
        Check("corpus-again", suite.again, after=("corpus-ends", "component-calls")),
        Check("corpus-sources", suite.sources, after=("corpus-again",)),
        Check("corpus-text", suite.text, after=("corpus-pieces", "corpus-again")),
        process_check(subject),
        Check("corpus-readers", suite.readers, after=("corpus-again",)),
        Check("corpus-errors", suite.errors),
    ]


@attrs.define
class _Suite:
    subject: Subject
    unreadable: Mapping[str, Any] | None
    largest: int
    _missing: str = ""
    _has_text: bool = False

    def build(self) -> Any:
        if self._missing:  # it is not tried again: a network may take long to fail
            raise Skip(self._missing)
        try:
            return self.subject.build()
        except CorpusError as error:
            self._missing = f"{UNREAD}{error}"
            raise Skip(self._missing) from error

    def first_piece(self) -> None:
        for piece in itertools.islice(self._read(self.build()), 1):
            self._check_type(piece)
            self._has_text = bool(piece)

    def _check_type(self, piece: Any) -> None:
        if not isinstance(piece, str) and piece is not DOCUMENT_END:
            raise Violation(f"a piece is of type {type(piece).__name__}")

    def pieces(self) -> None:
        for piece in self._read(self.build()):
            self._check_type(piece)
            if piece is not DOCUMENT_END and len(piece) > _LARGEST_PIECE:
                raise Violation(f"a piece has {len(piece):,} characters")

    def ends(self) -> None:
        read, last = 0, time.monotonic()

        def to_the_end() -> bool:
            nonlocal read, last
            for piece in self._read(self.build(), self.largest):
                read, last = read + _size(piece), time.monotonic()
            return read < self.largest

        try:
            has_ended = within(self.subject.time_limit, to_the_end)
        except TimeUpError:
            if time.monotonic() - last > _PAUSE:  # it blocks
                raise
            has_ended = False
        if not has_ended:
            raise Violation(f"it had not ended after {read:,} characters")

    def calls(self) -> None:
        corpus = self.build()
        for _ in self._read(corpus):
            pass
        close(corpus)

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
        if (first != _NOTHING or self._has_text) and self._digest(corpus) == _NOTHING:
            raise Violation("read() gave no text a second time; is its iterator used up?")
        for which, other in (("a second time", corpus), ("from a corpus built anew", self.build())):
            if self._digest(other) != first:
                raise Violation(f"read() gave another text {which}")

    def sources(self) -> None:
        corpus = self.build()
        if not hasattr(corpus, "sources"):
            return
        try:
            first, second = list(corpus.sources()), list(corpus.sources())
        except CorpusError as error:
            raise Skip(f"its files are not to be had here: {error}") from error
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
        alone = self._digest(corpus)
        abandoned = self._read(corpus)
        next(abandoned, None)
        if self._digest(corpus) != alone:
            raise Violation("it gave another text while a first reader was not done")
        if self._two_in_turn(corpus) != [alone, alone]:
            raise Violation("two readers took pieces in turn, and one of them got another text")
        if set(in_threads(lambda _: self._digest(corpus), 4)) != {alone}:
            raise Violation("it gave another text while other threads read too")

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

    def _read(self, corpus: Any, largest: int = _LARGEST_TEXT) -> Iterator[Any]:
        """The pieces, until there are enough."""
        read = 0
        try:
            pieces = corpus.read()
            if pieces is None:
                raise Violation("read() gave None; is a `yield` missing?", "corpus-pieces")
            if isinstance(pieces, str | bytes):
                seen = f"read() gave a {type(pieces).__name__}, and its pieces would be single ones; `yield` it"
                raise Violation(seen, "corpus-pieces")
            for piece in pieces:
                yield piece
                read += _size(piece)
                if read >= largest:
                    return
        except CorpusError as error:
            raise Skip(f"{UNREAD}{error}") from error

    def _two_in_turn(self, corpus: Any) -> list[str]:
        digests = [hashlib.sha256(), hashlib.sha256()]
        for pieces in itertools.zip_longest(self._read(corpus), self._read(corpus), fillvalue=""):
            for digest, piece in zip(digests, pieces, strict=True):
                digest.update(_bytes(piece))
        return [digest.hexdigest() for digest in digests]

    def _digest(self, corpus: Any) -> str:
        digest = hashlib.sha256()
        for piece in self._read(corpus):
            digest.update(_bytes(piece))
        return digest.hexdigest()


def _size(piece: Any) -> int:
    return 1 if piece is DOCUMENT_END else len(piece)


def _bytes(piece: Any) -> bytes:
    return b"\xff" if piece is DOCUMENT_END else piece.encode("utf-8", "surrogatepass")
