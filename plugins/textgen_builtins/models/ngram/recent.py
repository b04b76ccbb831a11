"""What followed where the text of a little earlier had the last tokens too.

Names, terms and phrases come back soon after they came. Cache models (Kuhn and De Mori, "A cache-based natural language
model for speech recognition", 1990) raise the probability of recent words, the match model of the PAQ compressors that
of what followed the longest recent match. Here the counts of matches of a few lengths are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from textgen.protocols import Ids
from textgen_builtins.models.ngram.smoothing import Floats32, Ints

Tokens = npt.NDArray[np.int32]

_DISCOUNT: Final = np.float32(0.7)  # taken from each count, and given to what the shorter matches say
_LENGTHS: Final = (-3, -1, 1, 4)  # of matches, beside the order of the n-grams; measured on prose and on source code
_MOST: Final = 200  # matches of the shortest length that count, the last ones: a text may be one character for ever
_PAIRS: Final = 1 << 22  # places compared at once
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)


class RecentTokens:
    """The last tokens of B texts, and what followed matches of their ends.

    tokens   (B, R) int32, the last R of each text; negative before its beginning
    order    of the n-grams that say what no match says
    """

    def __init__(self, tokens: Tokens, order: int) -> None:
        self._reach = tokens.shape[1]
        self._lengths = sorted({max(1, order + more) for more in _LENGTHS})
        self._kept = np.empty((len(tokens), 2 * self._reach), np.int32)  # moved to its beginning when it is full
        self._kept[:, : self._reach] = tokens
        self._end = self._reach

    @classmethod
    def none(cls, batch_size: int, reach: int, order: int) -> RecentTokens:
        """Before the first token of each text."""
        return cls(np.broadcast_to(np.arange(-reach, 0, dtype=np.int32), (batch_size, reach)), order)

    @property
    def tokens(self) -> Tokens:
        """A copy of (B, R)."""
        return self._kept[:, self._end - self._reach : self._end].copy()

    def append(self, tokens: Ids) -> None:
        """Read `tokens` (B, T)."""
        new = tokens[:, -self._reach :]
        self._make_room(new.shape[1])
        self._kept[:, self._end : self._end + new.shape[1]] = new
        self._end += new.shape[1]

    def append_one(self, token: int) -> None:
        """`append` for one token of one text."""
        self._make_room(1)
        self._kept[0, self._end] = token
        self._end += 1

    def _make_room(self, size: int) -> None:
        if self._end + size > self._kept.shape[1]:
            self._kept[:, : self._reach] = self.tokens
            self._end = self._reach

    def interpolate(self, probabilities: Floats32) -> None:
        """Turn the probabilities (B, V) of the n-grams, in place, into those after matches."""
        first, last = self._end - self._reach, self._end - 1
        rows, places = (self._kept[:, first:last] == self._kept[:, last : last + 1]).nonzero()
        starts = rows * self._kept.shape[1]
        self._follow(self._kept.reshape(-1), rows, starts + last, starts + first + places, probabilities)

    def read(self, tokens: Ids, probabilities: Floats32) -> None:
        """Append `tokens` (B, T), and do after each of them what `interpolate` does: `probabilities` is (B, T, V)."""
        step = max(1, _PAIRS // self._reach)
        for first in range(0, tokens.shape[1], step):
            block = tokens[:, first : first + step]
            texts = np.concatenate([self.tokens, block.astype(np.int32)], axis=1)
            for text, out in zip(texts, probabilities[:, first : first + step], strict=True):
                here, places = _pairs(text, self._reach, self._lengths[0])
                self._follow(text, here - self._reach, here, places, out)
            self.append(block)

    def _follow(self, text: Tokens, rows: Ints, here: Ints, places: Ints, probabilities: Floats32) -> None:
        """Interpolate by what followed `places` (K,) of a text.

        rows   (K,) rising, of `probabilities` (M, V)
        here   (K,) where the texts that these speak of end; the tokens at `here` and `places` are alike
        """
        depth = 1
        for length in self._lengths:
            for back in range(depth, length):
                if not len(rows):
                    return
                alike = (text[places - back] == text[here - back]) & (places - back > here - self._reach)
                rows, here, places = rows[alike], here[alike], places[alike]
            depth = length
            if length == self._lengths[0] and len(rows) > _MOST:
                few = np.searchsorted(rows, rows, side="right") - np.arange(len(rows)) <= _MOST
                rows, here, places = rows[few], here[few], places[few]
            if len(rows):
                _add(rows, text[places + 1], probabilities)


def _add(rows: Ints, following: Tokens, probabilities: Floats32) -> None:
    """Interpolate what followed: a row of `probabilities` (M, V) and a token (K,) for each match."""
    size = probabilities.shape[1]
    edges, counts = np.unique(rows * size + following, return_counts=True)
    parents = edges // size
    found, kinds = np.unique(parents, return_counts=True)  # rows with a match, and tokens that followed there
    totals = np.add.reduceat(counts, np.cumsum(kinds) - kinds).astype(np.float32)
    probabilities[found] *= (_DISCOUNT * kinds.astype(np.float32) / totals)[:, None]
    shares = (counts.astype(np.float32) - _DISCOUNT) / np.repeat(totals, kinds)
    probabilities[parents, edges - parents * size] += shares


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
