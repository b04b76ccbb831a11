"""What followed where the text of a little earlier had the last tokens too.

Names, terms and phrases come back soon after they came. Cache models (Kuhn and De Mori, "A cache-based natural language
model for speech recognition", 1990) raise the probability of recent words, the match model of the PAQ compressors that
of what followed the longest recent match. Here the counts of matches of a few lengths are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from textgen.protocols import Ids
from textgen_builtins.models.ngram.smoothing import Floats32, Ints

Tokens: TypeAlias = npt.NDArray[np.int32]

_DISCOUNT: Final = np.float32(
    0.7
)  # taken from each count, and given to what the shorter matches say
_LENGTHS: Final = (
    -3,
    -1,
    1,
    4,
)  # of matches, beside the order of the n-grams; measured on prose and on source code
_MOST: Final = 16  # matches of the shortest length that count, the last ones: a text may be one character for ever
_PAIRS: Final = 1 << 22  # places compared at once
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)


class RecentTokens:
    """The last R tokens of B texts, and what followed matches of their ends."""

    def __init__(self, tokens: Tokens, order: int) -> None:
        """The last `tokens` (B, R) of each text, all different and negative before its beginning.

        order    of the n-grams that say what no match says
        """
        self._reach = tokens.shape[1]
        self._lengths = sorted({max(1, order + more) for more in _LENGTHS})
        # Twice as many as are needed: moved to the beginning when it is full.
        self._kept = np.empty((len(tokens), 2 * self._reach), np.int32)
        self._kept[:, : self._reach] = tokens
        self._end = self._reach
        # (B, R - 1) how many tokens before each place, with it, are as at the end; None if not known
        self._matched: Tokens | None = None

    @classmethod
    def none(cls, batch_size: int, reach: int, order: int) -> RecentTokens:
        """Before the first token of each text."""
        before = np.arange(-reach, 0, dtype=np.int32)
        return cls(np.broadcast_to(before, (batch_size, reach)), order)

    @property
    def tokens(self) -> Tokens:
        """(B, R), not to be written to, and valid until the next call."""
        return self._kept[:, self._end - self._reach : self._end]

    def append(self, tokens: Ids) -> None:
        """Read `tokens` (B, T)."""
        new = tokens[:, -self._reach :]
        if self._end + new.shape[1] > self._kept.shape[1]:
            self._kept[:, : self._reach] = self.tokens.copy()
            self._end = self._reach
        self._kept[:, self._end : self._end + new.shape[1]] = new
        self._end += new.shape[1]
        if tokens.shape[1] != 1:
            self._matched = None
        elif self._matched is not None:
            self._matched += 1
            self._matched *= self.tokens[:, :-1] == self.tokens[:, -1:]

    def interpolate(self, probabilities: Floats32) -> None:
        """Turn the probabilities (B, V) of the n-grams, in place, into those after matches."""
        if self._matched is None:
            self._matched = self._match()
        # Flat, since NumPy's search of two axes takes three times as long.
        cells = (self._matched >= self._lengths[0]).reshape(-1).nonzero()[0]
        if not len(cells):
            return
        rows, places = np.divmod(cells, self._reach - 1)
        few = np.searchsorted(rows, rows, side="right") - np.arange(len(rows)) <= _MOST
        rows, places = rows[few], places[few]
        matched = np.minimum(
            self._matched[rows, places], places + 1
        )  # what lies before the last R does not count
        self._add(rows, self.tokens[rows, places + 1], matched, probabilities)

    def _match(self) -> Tokens:
        """`_matched`, up to the longest length."""
        tokens, reach = self.tokens, self._reach
        matched = np.zeros((len(tokens), reach - 1), np.int32)
        for back in range(min(self._lengths[-1], reach - 1)):
            alike = tokens[:, : reach - 1 - back] == tokens[:, reach - 1 - back, None]
            matched[:, back:] += alike & (matched[:, back:] == back)
        return matched

    def read(self, tokens: Ids, probabilities: Floats32) -> None:
        """Append `tokens` (B, T), and do after each of them what `interpolate` does: `probabilities` is (B, T, V)."""
        step = max(1, _PAIRS // self._reach)
        for first in range(0, tokens.shape[1], step):
            block = tokens[:, first : first + step]
            texts = np.concatenate([self.tokens, block.astype(np.int32)], axis=1)
            for text, out in zip(texts, probabilities[:, first : first + step], strict=True):
                here, places = _pairs(text, self._reach, self._lengths[0])
                matched, most = np.zeros_like(here), places - here + self._reach
                for back in range(self._lengths[-1]):
                    matched += (
                        (matched == back)
                        & (back < most)
                        & (text[np.maximum(places - back, 0)] == text[np.maximum(here - back, 0)])
                    )
                self._add(here - self._reach, text[places + 1], matched, out)
            self.append(block)

    def _add(
        self, rows: Ints, following: Tokens, matched: npt.NDArray[np.signedinteger], out: Floats32
    ) -> None:
        """Interpolate by matches: for each (K,) a row of `out` (M, V), rising, the token after it, and its length."""
        size = out.shape[1]
        for length in self._lengths:
            enough = matched >= length
            rows, following, matched = rows[enough], following[enough], matched[enough]
            if not len(rows):
                return
            edges, counts = np.unique(rows * size + following, return_counts=True)
            parents = edges // size
            found, kinds = np.unique(
                parents, return_counts=True
            )  # rows with a match, and tokens that followed there
            totals = np.add.reduceat(counts, np.cumsum(kinds) - kinds).astype(np.float32)
            out[found] *= (_DISCOUNT * kinds.astype(np.float32) / totals)[:, None]
            out[parents, edges - parents * size] += (
                counts.astype(np.float32) - _DISCOUNT
            ) / np.repeat(totals, kinds)


def _pairs(text: Tokens, first: int, length: int) -> tuple[Ints, Ints]:
    """Places from `first` on, rising, each with earlier ones that are less than `first` away, rising.

    The last `length` tokens at the two are alike, or their hashes are; the nearest _MOST are enough.
    """
    keys = np.zeros(len(text), np.uint64)
    for back in range(length):
        keys[back:] = keys[back:] * _FACTOR + text[: len(text) - back].astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    found = list(_groups(keys[order], order, first))
    here, places = (np.concatenate(column) for column in zip(*found, strict=True))
    rising = np.lexsort((places, here))
    return here[rising], places[rising]


def _groups(keys: npt.NDArray[np.uint64], order: Ints, first: int) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of places with the same key, by how many of the same lie between them; `keys` rise, and so do places."""
    spots, lag = np.flatnonzero(order >= first), 0
    while (len(spots) and lag < _MOST) or not lag:
        lag += 1
        spots = spots[spots >= lag]
        alike = (keys[spots - lag] == keys[spots]) & (order[spots] - order[spots - lag] < first)
        spots = spots[alike]
        yield order[spots], order[spots - lag]
