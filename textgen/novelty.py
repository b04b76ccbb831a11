"""Measures how much of a generated text is copied from the training corpus.

The corpus is searched in blocks. The hash of a window of tokens is a polynomial modulo 2**64, which
prefix sums over a block give for windows of any size.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from functools import cached_property
from typing import Final, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from textgen.documents import end_id
from textgen.protocols import Ids, Tokenizer

TRIES: Final = 100  # texts in a row that are not new, after which no other is tried
NGRAMS: Final = (8, 16, 32)
LONGEST: Final = 1000  # tokens of a run that are looked for
_BLOCK: Final = 1 << 20  # tokens of the corpus that are looked at together
_CONTEXT: Final = 30
_BASE: Final = 0x9E3779B97F4A7C15
_INVERSE: Final = pow(_BASE, -1, 1 << 64)
_ALL: Final = slice(None)

_Hashes: TypeAlias = npt.NDArray[np.uint64]
_Mask: TypeAlias = npt.NDArray[np.bool_]


@attrs.frozen
class CopyReport:
    """Passages of a text that also occur in the training corpus.

    tokens        number of tokens of the text
    longest       number of tokens of the longest such passage, from 8 to 1,000; 0 if there is none
    longest_text  that passage
    position      index of the token of the corpus where it first occurs; None if there is none
    excerpt       the corpus around it
    ngram_shares  for each n, the share of the text's n-grams that occur in the corpus; None if the
                  text is shorter than n
    is_document   whether prompt and text together are a whole document of the corpus
    passages      (start, end), in tokens, of the parts of the text whose 16-grams all occur in the
                  corpus
    """

    tokens: int
    longest: int
    longest_text: str
    position: int | None
    excerpt: str
    ngram_shares: dict[int, float | None]
    is_document: bool = False
    passages: tuple[tuple[int, int], ...] = ()

    def describe(self) -> str:
        """The report as a few lines of text."""
        shares = ", ".join(
            f"{n}-grams {share:.0%}" for n, share in self.ngram_shares.items() if share is not None
        )
        found = f"the longest run found in the training corpus is {self.longest} of {self.tokens}"
        lines = [f"novelty: {found} tokens: {self.longest_text!r}"]
        if self.position is not None:
            lines.append(f"  at token {self.position:,}: …{self.excerpt}…")
        lines.append(f"  found in the corpus: {shares or 'nothing to count'}")
        if self.is_document:
            lines.append("  the text is a whole document of the corpus")
        return "\n".join(lines)


@attrs.frozen
class CopyFinder:
    """Compares texts with the token ids (N,) of a training corpus. Can be used from any thread."""

    tokenizer: Tokenizer
    tokens: Ids

    def report(self, text: str, prompt: str = "") -> CopyReport:
        """Measure how much of `text`, a continuation of `prompt`, occurs in the training corpus.

        Reads the whole corpus.
        """
        ids = self._encode(text)
        held, start, length, position = _search(ids, self.tokens)
        excerpt = ""
        if position is not None:
            around = slice(max(0, position - _CONTEXT), position + min(length, 200) + _CONTEXT)
            excerpt = " ".join(self._decode(self.tokens[around]).split())
        return CopyReport(
            tokens=len(ids),
            longest=length,
            longest_text=self._decode(ids[start : start + length]),
            position=position,
            excerpt=excerpt,
            ngram_shares={n: float(own.mean()) if len(own) else None for n, own in held.items()},
            is_document=self.is_document(prompt + text),
            passages=_passages(held[16], 16),
        )

    def is_document(self, text: str) -> bool:
        """Whether a text is a whole document of the corpus; False if it has no documents."""
        ids = self._encode(text)
        starts, lengths = self._documents
        starts = starts[lengths == len(ids)]
        for offset, token in enumerate(ids):
            starts = starts[self.tokens[starts + offset] == token]
        return len(starts) > 0

    @cached_property
    def _documents(self) -> tuple[Ids, Ids]:
        """The first token of each document, and their lengths."""
        ends = np.flatnonzero(self.tokens == end_id(self.tokenizer))
        return ends[:-1] + 1, np.diff(ends) - 1

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
        is_copy = self.corpus is not None and self.corpus.is_document(text)
        if not is_copy and text.strip() not in self._seen:
            self._seen.add(text.strip())
            self.failed = 0
            return True
        self.failed += 1
        if self.failed == TRIES:
            cause = f"none of {TRIES} more texts is distinct from the {len(self._seen):,} before"
            remedy = (
                "fewer come than were asked for; samplers that leave out fewer tokens give more"
            )
            warnings.warn(f"{cause}; {remedy}", stacklevel=3)
        return False


class _Windows:
    """The windows of tokens (N,), by their first positions."""

    def __init__(self, tokens: Ids) -> None:
        powers, self._inverses = (
            np.multiply.accumulate(np.full(len(tokens), base, np.uint64))
            for base in (_BASE, _INVERSE)
        )
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(tokens * powers)])

    def hashes(self, size: int, positions: Ids | slice = _ALL) -> _Hashes:
        """The hashes of windows of a size, at some positions or all."""
        count = max(0, len(self._sums) - size)
        sums: _Hashes = self._sums[size:][positions] - self._sums[:count][positions]
        sums *= self._inverses[:count][positions]
        return sums

    def among(self, other: _Windows, size: int, positions: Ids) -> Ids:
        """Places with a window of a size that another has too."""
        positions = positions[positions < len(self._sums) - size]
        return positions[_among(self.hashes(size, positions), other.hashes(size))]


def _among(hashes: _Hashes, known: _Hashes) -> _Mask:
    """(N,) which hashes are known. Few pass a first look, at 16 bits."""
    likely = np.zeros(1 << 16, np.bool_)
    likely[known >> np.uint64(48)] = True
    mask: _Mask = likely[hashes >> np.uint64(48)]
    mask[mask] = np.isin(hashes[mask], known)
    return mask


def _search(text: Ids, corpus: Ids) -> tuple[dict[int, _Mask], int, int, int | None]:
    """Overlap of `text` (T,) with `corpus` (N,): for each n, whether the corpus holds the n tokens
    from each position of the text; the first position of the longest common run in the text, its
    length, and its first position in the corpus, which is None if there is none.
    """
    own = _Windows(text)
    held = {n: np.zeros(len(own.hashes(n)), np.bool_) for n in NGRAMS}
    start, length, position = 0, NGRAMS[0] - 1, None
    for begin in range(0, len(corpus), _BLOCK):
        block = _Windows(corpus[begin : begin + _BLOCK + LONGEST])
        positions: Ids = np.flatnonzero(_among(block.hashes(NGRAMS[0]), own.hashes(NGRAMS[0])))
        shared = positions
        for n in NGRAMS:
            shared = block.among(own, n, shared)
            held[n] |= _among(own.hashes(n), block.hashes(n, shared))
        sizes = range(length + 1, min(LONGEST, len(text)) + 1)
        longer = bisect_left(sizes, True, key=lambda n: not len(block.among(own, n, positions)))
        if longer:
            length += longer
            positions = block.among(own, length, positions)
            ours, theirs = own.hashes(length), block.hashes(length, positions)
            start = int(_among(ours, theirs).argmax())
            position = begin + int(positions[theirs == ours[start]][0])
    return held, start, 0 if position is None else length, position


def _passages(held: _Mask, n: int) -> tuple[tuple[int, int], ...]:
    # Where it changes, a part begins or ends, in turns.
    changes = np.flatnonzero(np.diff(held, prepend=False, append=False))
    return tuple((begin, end + n - 1) for begin, end in changes.reshape(-1, 2).tolist())
