"""Sorted shards of n-grams in files, for texts whose n-grams do not fit into memory.

An n-gram is a row of 64-bit words: its tokens as the digits of numbers, so that rows sort as n-grams do. Columns, one
array for each word, are sorted in memory a chunk at a time, and written as a shard with the count of each row. Shards
are merged a range of rows at a time, with the ranges chosen so that what one has of all shards fits into memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.uint64]
Columns = list[Column]
Counts = npt.NDArray[np.int64]

_STRIDE: Final = 1024  # rows of a shard for each one that stands for them when ranges are chosen
_END: Final = 1 << 64


@attrs.frozen
class Packing:
    """N-grams of `order` tokens below `base` - 1 as columns of numbers to that base; digit 0 is the end of the text."""

    base: int
    order: int

    @property
    def per_word(self) -> int:
        """How many digits fit into a word."""
        digits = 1
        while self.base ** (digits + 1) < _END:
            digits += 1
        return digits

    def digits(self, n: int) -> list[int]:
        """How many of the n digits of an n-gram each word has."""
        return [min(self.per_word, n - first) for first in range(0, n, self.per_word)]

    def pack(self, tokens: npt.NDArray[np.integer[Any]], count: int) -> Columns:
        """The n-grams at the first `count` places of `tokens`, beyond whose end there is nothing."""
        ids = np.zeros(count + self.order - 1, np.uint64)
        ids[: len(tokens)] = tokens
        ids[: len(tokens)] += np.uint64(1)
        first, columns = 0, []
        for digits in self.digits(self.order):
            columns.append(self._number(ids[first : first + count + digits - 1], digits))
            first += digits
        return columns

    def cut(self, columns: Columns, n: int) -> Columns:
        """The first n digits of rows of `order` digits."""
        wanted = self.digits(n)
        cut = columns[: len(wanted)]
        surplus = self.digits(self.order)[len(wanted) - 1] - wanted[-1]
        return [*cut[:-1], cut[-1] // self._power(surplus)] if surplus else cut

    def without_first(self, columns: Columns, n: int) -> Columns:
        """The last n - 1 digits of rows of n > 1 digits."""
        result, digits = [], self.digits(n)
        for place, (column, size) in enumerate(zip(columns, digits, strict=True)):
            rest = column % self._power(size - 1)
            if place + 1 < len(digits):
                rest = rest * np.uint64(self.base) + columns[place + 1] // self._power(
                    digits[place + 1] - 1
                )
            elif size == 1:
                break
            result.append(rest)
        return result

    def _number(self, ids: Column, digits: int) -> Column:
        """The numbers of so many digits that begin at each place, by doubling."""
        if digits == 1:
            return ids
        half = digits // 2
        left, right = (
            self._number(ids[: len(ids) - (digits - half)], half),
            self._number(ids[half:], digits - half),
        )
        number: Column = left * self._power(digits - half) + right
        return number

    def _power(self, exponent: int) -> np.uint64:
        return np.uint64(self.base**exponent)


def differs(columns: Columns) -> npt.NDArray[np.bool_]:
    """Whether each row but the first differs from the one before it."""
    changed: npt.NDArray[np.bool_] = columns[0][1:] != columns[0][:-1]
    for column in columns[1:]:
        changed |= column[1:] != column[:-1]
    return changed


def collect(columns: Columns, counts: npt.NDArray[Any] | None = None) -> tuple[Columns, Counts]:
    """The different rows in order, and how often each is there, or the sum of its `counts`."""
    if len(columns) == 1 and counts is None:
        columns = [np.sort(columns[0])]
    else:  # shards one after the other are runs in order, which a stable sort makes use of
        order = (
            np.argsort(columns[0], kind="stable")
            if len(columns) == 1
            else np.lexsort(columns[::-1])
        )
        columns = [column[order] for column in columns]
        counts = None if counts is None else counts[order]
    starts = np.concatenate([[0], np.flatnonzero(differs(columns)) + 1])
    sums = (
        np.diff(starts, append=len(columns[0]))
        if counts is None
        else np.add.reduceat(counts, starts, dtype="i8")
    )
    return [column[starts] for column in columns], sums


@attrs.frozen
class Shard:
    """Rows in order, each once, and their counts: a file for each column, one for counts, and one for a sample."""

    folder: Path
    name: str

    def write(self, columns: Columns, counts: Counts) -> None:
        """Write what `collect` gives."""
        for number, column in enumerate(columns):
            column.tofile(self._path(number))
        counts.astype(np.uint32 if counts.max(initial=0) < 1 << 32 else np.int64).tofile(
            self._path("counts")
        )
        columns[0][::_STRIDE].tofile(self._path("sample"))

    @property
    def rows(self) -> int:
        """How many there are."""
        return self._path(0).stat().st_size // 8

    def sample(self) -> Column:
        """Every 1,024th row, its first word."""
        return np.fromfile(self._path("sample"), np.uint64)

    def read(self, low: int = 0, high: int = _END) -> tuple[Columns, npt.NDArray[Any]]:
        """The rows whose first words are from `low` to below `high`, and their counts."""
        rows = self.rows
        start, stop = self._place(low) if low else 0, self._place(high) if high < _END else rows
        columns: Columns = []
        while (path := self._path(len(columns))).exists():
            columns.append(np.fromfile(path, np.uint64, stop - start, offset=8 * start))
        path = self._path("counts")
        dtype = np.dtype(np.uint32 if path.stat().st_size == 4 * rows else np.int64)
        return columns, np.fromfile(path, dtype, stop - start, offset=dtype.itemsize * start)

    def remove(self) -> None:
        """Remove the files."""
        for part in itertools.count():
            if not (path := self._path(part)).exists():
                break
            path.unlink()
        for name in ("counts", "sample"):
            self._path(name).unlink()

    def _path(self, part: int | str) -> Path:
        return self.folder / f"{self.name}.{part}"

    def _place(self, value: int) -> int:
        """How many rows have a first word below `value`: in the sample, then among the rows that one of it stands for.

        Not by mapping the file, whose pages would count as this process's memory.
        """
        first = max(0, int(np.searchsorted(self.sample(), np.uint64(value))) - 1) * _STRIDE
        near = np.fromfile(self._path(0), np.uint64, _STRIDE + 1, offset=8 * first)
        return first + int(np.searchsorted(near, np.uint64(value)))


def ranges(shards: Sequence[Shard], rows: int) -> list[tuple[int, int]]:
    """Ranges of first words, together all, with about so many `rows` of all shards in each.

    One has more where more rows begin with the same word.
    """
    samples = np.sort(np.concatenate([shard.sample() for shard in shards]))
    places = np.unique(samples[:: max(1, rows // _STRIDE)][1:]).tolist()
    places = [place for place in places if place > 0]
    return list(zip([0, *places], [*places, _END], strict=True))


def merge(shards: Sequence[Shard], low: int, high: int) -> tuple[Columns, Counts]:
    """All rows of the shards from `low` to below `high`, in order and each once; their counts are summed."""
    parts = [shard.read(low, high) for shard in shards]
    columns = [
        np.concatenate(column) for column in zip(*(columns for columns, _ in parts), strict=True)
    ]
    if not len(columns[0]):
        return columns, np.empty(0, np.int64)
    return collect(columns, np.concatenate([counts for _, counts in parts]))


def blocks(path: Path, dtype: Any, size: int) -> Iterator[npt.NDArray[Any]]:
    """The values of a file, so many at a time."""
    width, place = np.dtype(dtype).itemsize, 0
    while len(values := np.fromfile(path, dtype, size, offset=width * place)):
        yield values
        place += len(values)
