"""What a generated text shares with the corpus that its model was trained on.

The corpus is searched block by block for the windows of 8 bytes of tokens that the text has. The
hashes of two windows give the hash of one up to twice as long, so common windows of any size are
found without following each one.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Final, Self

import attrs
import numpy as np
import numpy.typing as npt

from textgen.documents import end_id
from textgen.protocols import Ids, Tokenizer

TRIES: Final = 100  # texts in a row that are not new, after which no other is tried
NGRAMS: Final = (8, 16, 32)
LONGEST: Final = 1000  # tokens of a run that are looked for
_SEED: Final = 8  # bytes
_BLOCK: Final = 1 << 20  # tokens of the corpus that are looked at together
_CONTEXT: Final = 30
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)


@attrs.frozen
class CopyReport:
    """What a text shares with the training corpus.

    tokens        number of tokens of the text
    longest       number of tokens of the longest passage that the corpus has too; `longest_text` is
                  its text. Passages shorter than 8 tokens (4 with a vocabulary above 256, 2 above
                  65,536) or longer than 1,000 are not found
    place         index of the corpus token where it first occurs; `excerpt` is the text around it
    ngram_shares  for each n, the share of the text's n-grams that the corpus has; None if the text
                  is shorter than n
    is_document   whether the text, with its prompt, is a whole document of the corpus
    passages      (start, end), in tokens, of the parts of the text whose 16-grams are all in the
                  corpus
    """

    tokens: int
    longest: int
    longest_text: str
    place: int | None
    excerpt: str
    ngram_shares: dict[int, float | None]
    is_document: bool = False
    passages: tuple[tuple[int, int], ...] = ()

    def describe(self) -> str:
        """The report in a few lines."""
        shares = ", ".join(
            f"{n}-grams {share:.0%}" for n, share in self.ngram_shares.items() if share is not None
        )
        found = (
            f"the longest run found in the training corpus is {self.longest} of "
            f"{self.tokens} tokens"
        )
        lines = [f"novelty: {found}: {self.longest_text!r}"]
        if self.place is not None:
            lines.append(f"  at token {self.place:,}: …{self.excerpt}…")
        lines.append(f"  found in the corpus: {shares or 'nothing to count'}")
        if self.is_document:
            lines.append("  the text is a whole document of the corpus")
        return "\n".join(lines)


@attrs.frozen
class CopyFinder:
    """Compares texts with the tokens (N,) of a training corpus. Any thread may use it."""

    tokenizer: Tokenizer
    tokens: Ids

    def report(self, text: str, prompt: str = "") -> CopyReport:
        """Measure how much of `text`, a continuation of `prompt`, is in the training corpus.

        Reads the corpus once.
        """
        ids = self._encode(text)
        found = _search(ids, self.tokens)
        is_found = found.length > 0
        return CopyReport(
            tokens=len(ids),
            longest=found.length,
            longest_text=self._decode(ids[found.start : found.start + found.length]),
            place=found.place if is_found else None,
            excerpt=self._excerpt(found.place, found.length) if is_found else "",
            ngram_shares={
                n: float(held.mean()) if len(held) else None for n, held in found.held.items()
            },
            is_document=self.is_document(prompt + text),
            passages=_passages(found.held[16], 16),
        )

    def is_document(self, text: str) -> bool:
        """Whether a text is a whole document of the training corpus.

        False if the corpus has no documents.
        """
        ids = self._encode(text)
        starts, lengths = self._documents
        starts = starts[lengths == len(ids)]
        for place, token in enumerate(ids):
            if not len(starts):
                break
            starts = starts[self.tokens[starts + place] == token]
        return bool(len(starts))

    @cached_property
    def _documents(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The first token of each document, and their lengths."""
        ends = np.flatnonzero(self.tokens == end_id(self.tokenizer))
        return ends[:-1] + 1, np.diff(ends) - 1

    def _excerpt(self, place: int, length: int) -> str:
        ids = self.tokens[max(0, place - _CONTEXT) : place + min(length, 200) + _CONTEXT]
        documents = np.split(ids, np.flatnonzero(ids == end_id(self.tokenizer)))
        return " / ".join(" ".join(self._decode(each).split()) for each in documents)

    def _encode(self, text: str) -> Ids:
        return np.asarray(self.tokenizer.encode(text)).astype(self.tokens.dtype)

    def _decode(self, ids: Ids) -> str:
        return self.tokenizer.decode(ids.astype(np.int64))


@attrs.define
class DistinctTexts:
    """Tells new texts from those that came before and from the documents of a corpus, if there is
    one.

    White space around a text makes no difference.
    """

    corpus: CopyFinder | None
    failed: int = attrs.field(default=0, init=False)
    """Texts in a row that were not new."""
    _seen: set[str] = attrs.field(factory=set, init=False)

    def is_new(self, text: str) -> bool:
        """Whether a text is new."""
        if text.strip() not in self._seen and not (self.corpus and self.corpus.is_document(text)):
            self._seen.add(text.strip())
            self.failed = 0
            return True
        self.failed += 1
        if self.failed == TRIES:
            cause = f"none of {TRIES} more texts is distinct from the {len(self._seen):,} before"
            of_corpus = " and from the documents of the corpus" if self.corpus else ""
            remedy = "fewer come than were asked for; a higher temperature gives more"
            warnings.warn(f"{cause}{of_corpus}; {remedy}", stacklevel=3)
        return False


@attrs.define
class _Found:
    """What a text shares with a corpus.

    held    for each n, whether the corpus holds the n tokens from each place of the text
    length, start, place   of the longest common run: its tokens, and where it stands first in text
                           and corpus
    """

    held: dict[int, npt.NDArray[np.bool_]]
    length: int = 0
    start: int = 0
    place: int = 0


@attrs.frozen
class _Windows:
    """Windows of one size: their places (N,), rising, and a hash of each."""

    size: int
    places: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, tokens: Ids) -> Self:
        """Those of 8 bytes, which are their own hashes."""
        size = _SEED // tokens.itemsize
        windows = np.lib.stride_tricks.sliding_window_view(tokens, size).copy()
        return cls(size, np.arange(len(windows)), windows.view(np.uint64)[:, 0])

    def longer(self, size: int) -> Self:
        """Those of a size up to twice as large: the first and the last tokens of each are two of
        these windows.
        """
        if size == self.size or not len(self.places):
            return attrs.evolve(self, size=size)
        shifted = self.places + (size - self.size)
        last = np.minimum(np.searchsorted(self.places, shifted), len(self.places) - 1)
        first = np.flatnonzero(self.places[last] == shifted)
        hashes = self.hashes[first] * _FACTOR + self.hashes[last[first]]
        return type(self)(size, self.places[first], (hashes ^ (hashes >> _HALF)) * _FACTOR)

    def shared_with(self, other: _Windows) -> Self:
        """Those that `other` has too."""
        shared = np.isin(self.hashes, other.hashes)
        return attrs.evolve(self, places=self.places[shared], hashes=self.hashes[shared])


def _search(text: Ids, corpus: Ids) -> _Found:
    """What `text` (T,) shares with `corpus` (N,), both of one dtype."""
    found = _Found({n: np.zeros(max(0, len(text) - n + 1), bool) for n in NGRAMS})
    seed, longest = _SEED // text.itemsize, min(LONGEST, len(text))
    if longest < seed:
        return found
    levels = [_Windows.of(text)]
    while 2 * levels[-1].size <= longest:
        levels.append(levels[-1].longer(2 * levels[-1].size))
    likely = np.zeros(
        1 << 16, bool
    )  # the short hashes of the text: few windows of the corpus have one
    likely[_short(levels[0].hashes)] = True
    for begin in range(0, len(corpus) - seed + 1, _BLOCK):
        block = _Windows.of(corpus[begin : begin + _BLOCK + LONGEST])
        kept = np.flatnonzero(likely[_short(block.hashes)])
        here = attrs.evolve(block, places=begin + kept, hashes=block.hashes[kept])
        level = None
        for own in levels:
            shared = here.longer(own.size).shared_with(own)
            if not len(shared.places):
                break
            here, level = shared, own
            if own.size in found.held:
                found.held[own.size][own.shared_with(here).places] = True
        if level is not None:
            _note_longest(found, level, here, min(2 * level.size - 1, longest))
    return found


def _note_longest(found: _Found, own: _Windows, here: _Windows, most: int) -> None:
    """Note the longest run of `own.size` to `most` tokens that text and block share, if none is
    longer.
    """

    def shared(size: int) -> tuple[_Windows, _Windows]:
        ours, theirs = own.longer(size), here.longer(size)
        return ours.shared_with(theirs), theirs

    low, high = max(own.size, found.length), most
    if low > high or not len(shared(low)[0].places):
        return
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(shared(middle)[0].places) else (low, middle - 1)
    ours, theirs = shared(low)
    start = int(ours.places[0])
    if low > found.length or start < found.start:
        place = theirs.places[theirs.hashes == ours.hashes[0]][0]
        found.length, found.start, found.place = low, start, int(place)


def _short(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (hashes * _FACTOR) >> np.uint64(48)


def _passages(held: npt.NDArray[np.bool_], n: int) -> tuple[tuple[int, int], ...]:
    # Where it changes, a part begins or ends, in turns.
    changes = np.flatnonzero(np.diff(held, prepend=False, append=False))
    return tuple((begin, end + n - 1) for begin, end in changes.reshape(-1, 2).tolist())
