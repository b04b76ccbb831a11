"""What followed where the text of a little earlier had the last tokens too.

Names, terms and phrases come back soon after they came. Cache models (Kuhn and De Mori, "A cache-based natural language
model for speech recognition", 1990) raise the probability of recent words, the match model of the PAQ compressors that
of what followed the longest recent match. Here the counts of matches of a few lengths are interpolated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
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


class RecentTokens(ABC):
    """The last R tokens of B texts, and what followed matches of their ends."""

    def __init__(self, reach: int, order: int) -> None:
        self._reach = reach
        self._lengths = sorted({max(1, order + more) for more in _LENGTHS})

    @staticmethod
    def of(tokens: Tokens, order: int) -> RecentTokens:
        """The last `tokens` (B, R) of each text, all different and negative before its beginning.

        order    of the n-grams that say what no match says
        """
        return _OneText(tokens, order) if len(tokens) == 1 else _Texts(tokens, order)

    @classmethod
    def none(cls, batch_size: int, reach: int, order: int) -> RecentTokens:
        """Before the first token of each text."""
        return cls.of(
            np.broadcast_to(np.arange(-reach, 0, dtype=np.int32), (batch_size, reach)), order
        )

    @property
    @abstractmethod
    def tokens(self) -> Tokens:
        """(B, R), not to be written to, and valid until the next call."""

    @abstractmethod
    def append(self, tokens: Ids) -> None:
        """Read `tokens` (B, T)."""

    def append_one(self, token: int) -> None:
        """`append` for one token of one text."""
        self.append(np.array([[token]]))

    @abstractmethod
    def interpolate(self, probabilities: Floats32) -> bool:
        """Turn the probabilities (B, V) of the n-grams, in place, into those after matches; False if there is none."""

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


class _Texts(RecentTokens):
    """Of several texts: the length of the match at each place, brought up to date with each token."""

    def __init__(self, tokens: Tokens, order: int) -> None:
        super().__init__(tokens.shape[1], order)
        self._kept = np.empty(
            (len(tokens), 2 * self._reach), np.int32
        )  # moved to its beginning when it is full
        self._kept[:, : self._reach] = tokens
        self._end = self._reach
        self._matched: Tokens | None = (
            None  # (B, R - 1) how many tokens before each place, with it, are as at the end
        )

    @property
    def tokens(self) -> Tokens:
        return self._kept[:, self._end - self._reach : self._end]

    def append(self, tokens: Ids) -> None:
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

    def interpolate(self, probabilities: Floats32) -> bool:
        if self._matched is None:
            self._matched = self._match()
        # Flat, since NumPy's search of two axes takes three times as long.
        cells = (self._matched >= self._lengths[0]).reshape(-1).nonzero()[0]
        if not len(cells):
            return False
        rows, places = np.divmod(cells, self._reach - 1)
        few = np.searchsorted(rows, rows, side="right") - np.arange(len(rows)) <= _MOST
        rows, places = rows[few], places[few]
        matched = np.minimum(
            self._matched[rows, places], places + 1
        )  # what lies before the last R does not count
        self._add(rows, self.tokens[rows, places + 1], matched, probabilities)
        return True

    def _match(self) -> Tokens:
        """`_matched`, up to the longest length."""
        tokens, reach = self.tokens, self._reach
        matched = np.zeros((len(tokens), reach - 1), np.int32)
        for back in range(min(self._lengths[-1], reach - 1)):
            alike = tokens[:, : reach - 1 - back] == tokens[:, reach - 1 - back, None]
            matched[:, back:] += alike & (matched[:, back:] == back)
        return matched


class _OneText(RecentTokens):
    """Of one text, in Python's integers: the places where each run of the shortest length ends."""

    def __init__(self, tokens: Tokens, order: int) -> None:
        super().__init__(tokens.shape[1], order)
        self._text: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        self._before: list[int] = []  # where the last run ended before, the last times
        self._matched: dict[int, int] = {}  # by place, the lengths of the last matches asked for
        self._asked = -1  # and where the text ended then
        self._index([token for token in tokens[0].tolist() if token >= 0])

    @property
    def tokens(self) -> Tokens:
        known = self._text[-self._reach :]
        return np.concatenate([np.arange(len(known) - self._reach, 0), known]).astype(np.int32)[
            None
        ]

    def append(self, tokens: Ids) -> None:
        new = tokens[0, -self._reach :].tolist()
        if len(new) == self._reach:  # nothing before them counts
            self._index(new)
            return
        for token in new:
            self.append_one(token)

    def append_one(self, token: int) -> None:
        text, length = self._text, self._lengths[0]
        if len(text) > 4 * self._reach:
            self._index(text[-self._reach :])
            text = self._text
        text.append(token)
        if len(text) >= length:
            places = self._places.setdefault(tuple(text[-length:]), [])
            self._before = places[-_MOST:]
            places.append(len(text) - 1)

    def interpolate(self, probabilities: Floats32) -> bool:
        if not self._before:
            return False
        counts, row = self._followed(), probabilities[0]
        for level in range(len(self._lengths)):
            tokens: dict[int, int] = {}
            for (reached, token), count in counts.items():
                if reached > level:
                    tokens[token] = tokens.get(token, 0) + count
            if not tokens:
                break
            total = np.float32(sum(tokens.values()))
            row *= _DISCOUNT * np.float32(len(tokens)) / total
            for token, count in tokens.items():
                row[token] += (np.float32(count) - _DISCOUNT) / total
        return bool(counts)

    def _followed(self) -> dict[tuple[int, int], int]:
        """How often each token followed a match that reached so many of the lengths."""
        text, last, lengths = self._text, len(self._text) - 1, self._lengths
        known = self._matched if self._asked == last - 1 else {}
        counts: dict[tuple[int, int], int] = {}
        self._matched, self._asked = {}, last
        for place in self._before:
            most = min(lengths[-1], place - last + self._reach, place + 1)
            if most < lengths[0]:
                continue
            matched = min(
                known.get(place - 1, lengths[0] - 1) + 1, most
            )  # one longer than a token ago
            while matched < most and text[place - matched] == text[last - matched]:
                matched += 1
            self._matched[place] = matched
            found = bisect_right(lengths, matched), text[place + 1]
            counts[found] = counts.get(found, 0) + 1
        return counts

    def _index(self, text: list[int]) -> None:
        """Begin anew, with this text."""
        self._text, self._places, self._before, self._asked = [], {}, [], -1
        for token in text:
            self.append_one(token)


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
