"""The passes of counting in bounded memory, as tasks for processes that share nothing but files.

1. `count_chunk`: the n-grams of the highest order in a part of the text, as a shard.
2. `merge_range`: a range of all shards, merged, so that the ranges together are all n-grams of the highest order.
3. `count_order`: what the others need of order n, from one stream of those: its n-grams and how often they occur; and
   after how many different tokens each n-gram of order n - 1 occurs, for which these are sorted by their last tokens.

A task is a generator that yields None now and then, so that whoever waits can stop; it returns what JSON can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen_builtins.models.ngram.shards import (
    Columns,
    Counts,
    Packing,
    Shard,
    collect,
    differs,
    merge,
    ranges,
)

Task = Generator[None, None, Any]
MOST: Final = 255  # counts above it are told as one, where a threshold is chosen
TICKS: Final = 20  # steps of a task over all shards, beside those of the shards


@attrs.frozen
class Job:
    """What all tasks know.

    folder   where the shards are
    path     the file of the text: `tokens` ids of `dtype` from byte `offset`
    rows     how many rows of one column a task may sort at once
    """

    folder: str
    path: str
    dtype: str
    offset: int
    tokens: int
    vocab_size: int
    order: int
    rows: int

    @property
    def packing(self) -> Packing:
        """Of the highest order."""
        return Packing(self.vocab_size + 1, self.order)

    @property
    def chunk(self) -> int:
        """Rows of the highest order sorted at once; sorting several columns takes more memory than one."""
        columns = len(self.packing.digits(self.order))
        return max(1, self.rows if columns == 1 else self.rows // (columns + 1))

    def shard(self, name: str) -> Shard:
        """A shard in the folder."""
        return Shard(Path(self.folder), name)

    def text(self, start: int, stop: int) -> Any:
        """The tokens from `start` to below `stop`, read, since a mapped file counts as memory."""
        width = np.dtype(self.dtype).itemsize
        return np.fromfile(
            self.path,
            self.dtype,
            min(stop, self.tokens) - start,
            offset=self.offset + width * start,
        )


def count_chunk(job: Job, number: int) -> Task:
    """Count the n-grams of the highest order that begin in a chunk. Returns how often each token is there."""
    start = number * job.chunk
    stop = min(start + job.chunk, job.tokens)
    tokens = job.text(start, stop + job.order - 1)
    job.shard(f"chunk-{number}").write(*collect(job.packing.pack(tokens, stop - start)))
    yield None
    return np.bincount(tokens[: stop - start], minlength=job.vocab_size).tolist()


def merge_range(job: Job, number: int, shards: int, low: int, high: int) -> Task:
    """Merge a range of the first `shards` chunks to a shard of its own. Returns nothing."""
    job.shard(f"whole-{number}").write(
        *merge([job.shard(f"chunk-{i}") for i in range(shards)], low, high)
    )
    yield None


def count_order(job: Job, n: int, shards: int) -> Task:
    """Write the files of order n: `keys-n` and `counts-n`, and `preceding-(n - 1)`, all int64.

    The keys are number of the context, among all of order n - 1 in order, · V + token. Returns a list of how many
    n-grams there are that occur 0, 1, ... MOST times or more.
    """
    order = _Order(job, n)
    for number in range(shards):
        order.add(*job.shard(f"whole-{number}").read())
        yield None
    order.close()
    if n > 1:
        yield from order.write_preceding()
    return order.occurring.tolist()


class _Order:
    """Order n as it comes out of the stream of all rows of the highest order."""

    def __init__(self, job: Job, n: int) -> None:
        self._job, self._packing, self._n = job, job.packing, n
        self._folder = Path(job.folder)
        self._keys = (self._folder / f"keys-{n}").open("wb")
        self._counts = (self._folder / f"counts-{n}").open("wb")
        self._last: Columns | None = None  # the row before
        self._contexts = 0  # of which so many were there
        self._open: tuple[int, int] | None = (
            None  # the n-gram that may go on in the next rows: key and count
        )
        self.occurring = np.zeros(MOST + 1, np.int64)
        self._shards: list[Shard] = []
        self._pending: list[Columns] = []
        if n > 1:  # the beginning of the text is something that comes before, too
            first = Packing(self._packing.base, n - 1)
            self._pending.append(first.pack(job.text(0, n - 1), 1) if job.tokens >= n - 1 else [])
        self._pending = [columns for columns in self._pending if columns]

    def add(self, columns: Columns, counts: Any) -> None:
        """Take the next rows."""
        packing, n, base = self._packing, self._n, np.uint64(self._packing.base)
        if not len(counts):
            return
        contexts = np.zeros(len(counts), np.int64)
        if n > 1:
            begins = self._begins(packing.cut(columns, n - 1), n - 1)
            contexts = self._contexts + np.cumsum(begins) - 1
            self._contexts += int(begins.sum())
        cut = packing.cut(columns, n)
        begins = self._begins(cut, n)
        self._last = [column[-1:] for column in columns]
        tokens = (cut[-1] % base).astype(np.int64) - 1
        there = tokens >= 0  # the others are the end of the text
        if not there.all():
            cut, counts, begins = [column[there] for column in cut], counts[there], begins[there]
            contexts, tokens = contexts[there], tokens[there]
        starts = np.flatnonzero(begins)
        ahead = int(starts[0]) if len(starts) else len(counts)
        if self._open is not None:
            self._open = self._open[0], self._open[1] + int(counts[:ahead].sum(dtype=np.int64))
        if not len(starts):
            return
        sums = np.add.reduceat(counts, starts, dtype=np.int64)
        keys = contexts[starts] * self._job.vocab_size + tokens[starts]
        self._write_open()
        self._write(keys[:-1], sums[:-1])
        self._open = int(keys[-1]), int(sums[-1])
        if n > 1:
            self._pending.append(packing.without_first([column[starts] for column in cut], n))
            if sum(len(columns[0]) for columns in self._pending) >= self._job.chunk:
                self._spill()

    def close(self) -> None:
        """All rows were there."""
        self._write_open()
        self._keys.close()
        self._counts.close()

    def write_preceding(self) -> Task:
        """Write after how many different tokens each n-gram of order n - 1 occurs."""
        self._spill()
        parts, shown = ranges(self._shards, self._job.chunk), 0
        with (self._folder / f"preceding-{self._n - 1}").open("wb") as file:
            for number, (low, high) in enumerate(parts, 1):
                merge(self._shards, low, high)[1].tofile(file)
                while shown * len(parts) < number * TICKS:
                    shown += 1
                    yield None
        for shard in self._shards:
            shard.remove()

    def _begins(self, cut: Columns, n: int) -> Any:
        """Whether each row is the first of an n-gram, given its first n digits."""
        begins = np.empty(len(cut[0]), np.bool_)
        begins[1:] = differs(cut)
        last = None if self._last is None else self._packing.cut(self._last, n)
        begins[0] = last is None or any(a[0] != b[0] for a, b in zip(last, cut, strict=True))
        begins &= cut[-1] % np.uint64(self._packing.base) != 0
        return begins

    def _spill(self) -> None:
        if not self._pending:
            return
        columns = [np.concatenate(column) for column in zip(*self._pending, strict=True)]
        self._pending = []
        shard = self._job.shard(f"order-{self._n}-{len(self._shards)}")
        shard.write(*collect(columns))
        self._shards.append(shard)

    def _write_open(self) -> None:
        if self._open is not None:
            key, count = self._open
            self._write(np.array([key]), np.array([count]))
            self._open = None

    def _write(self, keys: Counts, counts: Counts) -> None:
        keys.tofile(self._keys)
        counts.tofile(self._counts)
        self.occurring += np.bincount(np.minimum(counts, MOST), minlength=MOST + 1)


TASKS: Final[dict[str, Callable[..., Task]]] = {
    task.__name__: task for task in (count_chunk, merge_range, count_order)
}
