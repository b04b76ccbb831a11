"""Counting in bounded memory: n-grams in sorted shards on disk, made and merged by several processes.

As KenLM counts (Heafield et al., "Scalable modified Kneser-Ney language model estimation", 2013): by external sorting,
with thresholds of counts below which n-grams are left out of the model, though not out of its statistics.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import attrs
import numpy as np

from textgen.protocols import Ids
from textgen_builtins.models.ngram.passes import MOST, TICKS, Job
from textgen_builtins.models.ngram.pruning import prune_by_entropy
from textgen_builtins.models.ngram.shards import blocks, ranges
from textgen_builtins.models.ngram.smoothing import Floats, Ints, discounts_of
from textgen_builtins.models.ngram.trie import Trie
from textgen_builtins.models.ngram.workers import Workers

_BYTES_PER_ROW: Final = 48  # of memory while rows of one column are packed, sorted and written
_BYTES_PER_NGRAM: Final = 78  # of memory while a model is made of them
_MODEL: Final = (
    150 * 10**6
)  # bytes of a process with a model, beside its n-grams: NumPy, and rows kept ready
_FIXED: Final = 40 << 20  # bytes of a process before it does anything
_LEAST_ROWS, _MOST_ROWS = (
    1 << 12,
    1 << 21,
)  # the most take some tenths of a second, after which a run may be stopped
_TOKENS_PER_PROCESS: Final = 1 << 22  # below which another one costs more than it brings


@attrs.frozen
class Budget:
    """What counting may take.

    memory      bytes of all processes together, about
    processes   how many; 0 for one a core
    prune       of each order, the last for all after it: n-grams that occur so often or less are left out. None for
                nothing, or as little as makes the model fit into the memory
    """

    memory: int
    processes: int = 0
    prune: tuple[int, ...] | None = None


@attrs.frozen
class Progress:
    """One step of counting: `step` of about `steps`, and the loss in nats per token of the order 1 so far."""

    steps: int
    tokens: int
    loss: float


class BoundedCounter:
    """Counts the n-grams of `tokens` (N,), N > 0, up to `order`; `trie` has them once `run` has ended."""

    def __init__(
        self,
        tokens: Ids,
        vocab_size: int,
        order: int,
        budget: Budget,
        prune_entropy: float = 0.0,
        end: int | None = None,
    ) -> None:
        self._tokens, self._vocab_size, self._order, self._budget = (
            tokens,
            vocab_size,
            order,
            budget,
        )
        self._prune_entropy, self._end = prune_entropy, end
        self._progress = Progress(0, 0, 0.0)
        self.prune: tuple[int, ...] = ()
        self.trie = Trie(vocab_size, np.empty(0, np.int64), np.empty(0, np.int64), ())

    def run(self) -> Iterator[Progress]:
        """Count, several times a second with a sign of life. The folder is gone when this ends or is closed."""
        with _folder(self._tokens) as folder:
            number = self._processes()
            job = self._job(folder, number)
            with Workers(job, number) as workers:
                yield from self._count(job, workers)
            self.trie = yield from self._assemble(job)

    def _assemble(self, job: Job) -> Generator[Progress, None, Trie]:
        work = _Assembly(job, self.prune, self._prune_entropy, self._end).trie()
        while True:
            try:
                next(work)
            except StopIteration as end:
                trie: Trie = end.value
                return trie
            yield self._progress

    def _count(self, job: Job, workers: Workers) -> Iterator[Progress]:
        chunks = -(-job.tokens // job.chunk)
        steps, seen = chunks * (job.order + 2), np.zeros(job.vocab_size, np.int64)
        for _, told in _in_order(workers.run([["count_chunk", i] for i in range(chunks)])):
            here = np.array(told, np.int64)
            seen += here
            there = here > 0
            loss = float(-(here[there] * np.log(seen[there] / seen.sum())).sum() / here.sum())
            yield Progress(steps, int(here.sum()), loss)
        shards = [job.shard(f"chunk-{i}") for i in range(chunks)]
        parts = ranges(shards, job.chunk)
        steps = chunks + len(parts) + job.order * (len(parts) + TICKS) + 3 * job.order
        self._progress = Progress(steps, 0, loss)
        tasks: list[list[Any]] = [["merge_range", i, chunks, *part] for i, part in enumerate(parts)]
        for number, _ in workers.run(tasks):
            if number >= 0:
                yield self._progress
        for shard in shards:
            shard.remove()
        occurring: dict[int, Any] = {}
        orders = range(job.order, 0, -1)  # the longest takes longest
        for number, told in workers.run([["count_order", n, len(parts)] for n in orders]):
            if number >= 0:
                occurring[orders[number]] = np.array(told)
            else:
                yield self._progress
        self.prune = self._thresholds([occurring[n] for n in sorted(occurring)])

    def _thresholds(self, occurring: Sequence[Ints]) -> tuple[int, ...]:
        """One for each order, given how many n-grams of it occur 0, 1, ... times."""
        orders, given = len(occurring), self._budget.prune
        if given is not None:
            return tuple(given[min(n, len(given) - 1)] for n in range(orders))
        most = max((self._budget.memory - _MODEL) // _BYTES_PER_NGRAM, self._budget.memory // 400)
        for threshold in range(MOST - 1):
            prune = tuple(0 if n < 2 else threshold for n in range(orders))
            if (
                sum(int(each[t + 1 :].sum()) for each, t in zip(occurring, prune, strict=True))
                <= most
            ):
                break
        return prune

    def _processes(self) -> int:
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        return self._budget.processes or max(
            1, min(cores, len(self._tokens) // _TOKENS_PER_PROCESS)
        )

    def _job(self, folder: Path, processes: int) -> Job:
        path, offset = _file_of(self._tokens, folder)
        rows = (self._budget.memory // processes - _FIXED) // _BYTES_PER_ROW
        return Job(
            folder=str(folder),
            path=str(path),
            dtype=self._tokens.dtype.str,
            offset=offset,
            tokens=len(self._tokens),
            vocab_size=self._vocab_size,
            order=self._order,
            rows=max(_LEAST_ROWS, min(rows, _MOST_ROWS)),
        )


@attrs.frozen
class _Assembly:
    """Makes a trie of the files of all orders."""

    job: Job
    prune: Sequence[int]
    prune_entropy: float
    end: int | None

    def trie(self) -> Generator[None, None, Trie]:
        """The n-grams that occur often enough, under the numbers of nodes that they then have."""
        keys, counts, sizes, totals, occurrences = [], [], [], [], []
        discounts, first, below = (
            np.empty((self.job.order, 3)),
            0,
            1,
        )  # node of the order's first context; contexts
        begins = range(0)  # n-grams of the order below that begin with the end of a document
        for n in range(1, self.job.order + 1):
            order = yield from _PrunedOrder.read(self.job, n, self.prune, below, begins)
            begins = order.begins if n > 1 else _places(order.keys, self.end)
            keys.append(order.keys + first * self.job.vocab_size)
            counts.append(order.counts)
            totals.append(order.totals)
            occurrences.append(order.occurrences if self.prune_entropy else order.occurrences[:0])
            discounts[n - 1] = order.discounts
            first += below
            below = len(order.keys)
            sizes.append(below)
            del order
        joined, occurs = _joined(keys), _joined(occurrences)
        arrays: list[Any] = [self.job.vocab_size, joined, _joined(counts), sizes]
        if any(self.prune) or self.prune_entropy:
            arrays += [_joined(totals), discounts]
        trie = yield from Trie.gradually(*arrays)
        if self.prune_entropy:
            stays = yield from prune_by_entropy(trie, occurs, self.job.tokens, self.prune_entropy)
            trie = yield from trie.part(stays)
        return trie


def _joined(arrays: list[Any]) -> Any:
    """All in one, and no longer in the list."""
    joined = np.concatenate(arrays)
    arrays.clear()
    return joined


@attrs.frozen
class _PrunedOrder:
    """What the model has of an order. Contexts are numbered from 0 within the order, without those left out."""

    keys: Ints
    counts: Any
    occurrences: Any
    totals: Ints
    discounts: Floats
    begins: range

    @classmethod
    def read(
        cls, job: Job, n: int, prune: Sequence[int], contexts: int, begins: range
    ) -> Generator[None, None, Self]:
        """Order n, of so many contexts that are left. All are counted as often as they occur whose contexts, before any
        was left out, are `begins`; which those are is its `begins`."""
        folder, size, vocab_size = Path(job.folder), job.chunk, job.vocab_size
        keys, counts, occurrences = (
            [np.empty(0, np.int64)],
            [np.empty(0, np.uint32)],
            [np.empty(0, np.uint32)],
        )
        totals = np.zeros(contexts, np.int64)
        numbers, passed, own = np.zeros(6, np.int64), 0, [0, 0]
        shared = folder / (f"preceding-{n}" if n < job.order else f"counts-{n}")
        renumber = _Renumbering(folder, n - 1, prune)
        for key, occurs, count in zip(
            blocks(folder / f"keys-{n}", np.int64, size),
            blocks(folder / f"counts-{n}", np.int64, size),
            blocks(shared, np.int64, size),
            strict=True,
        ):
            parents = key // vocab_size
            first, last = np.searchsorted(parents, [begins.start, begins.stop]).tolist()
            count[first:last] = occurs[first:last]
            if last > first:
                own = [own[0] if own[1] else passed + first, passed + last]
            passed += len(key)
            numbers += np.bincount(np.minimum(count, 5), minlength=6)
            tokens = key - parents * vocab_size
            ranks = renumber.ranks(parents)
            known = ranks >= 0
            totals += np.bincount(ranks[known], count[known], contexts).astype(np.int64)
            left = known & (occurs > prune[n - 1])
            keys.append(ranks[left] * vocab_size + tokens[left])
            counts.append(_small(count[left]))
            occurrences.append(_small(occurs[left]))
            yield None
        joined = _joined(keys), _joined(counts), _joined(occurrences)
        return cls(*joined, totals, discounts_of(numbers[1:5]), range(*own))


def _places(keys: Ints, token: int | None) -> range:
    """Where a token is among those of order 1."""
    found = [] if token is None else np.flatnonzero(keys == token).tolist()
    return range(found[0], found[0] + 1) if found else range(0)


def _small(counts: Ints) -> Any:
    return counts.astype(np.int64 if counts.max(initial=0) >> 32 else np.uint32)


class _Renumbering:
    """The numbers of contexts of order n among those that are left, for numbers that never fall."""

    def __init__(self, folder: Path, n: int, prune: Sequence[int]) -> None:
        self._path, self._threshold = folder / f"counts-{n}", prune[n - 1] if n else 0
        self._next, self._left = 0, 0  # contexts before this one, of which so many are left

    def ranks(self, contexts: Ints) -> Ints:
        """(M,) the new numbers, -1 for what is left out."""
        if not self._threshold:
            return contexts
        last = int(contexts[-1])
        kept = (
            np.fromfile(self._path, np.int64, last + 1 - self._next, offset=8 * self._next)
            > self._threshold
        )
        ranks = self._left + np.cumsum(kept) - 1
        places = contexts - self._next
        result = np.where(kept[places], ranks[places], -1)
        self._left += int(kept[:-1].sum())  # the last may have more to follow
        self._next = last
        return result


def _in_order(results: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Results by their numbers, whatever order they come in."""
    early: dict[int, Any] = {}
    following = 0
    for number, result in results:
        early[number] = result
        while following in early:
            yield following, early.pop(following)
            following += 1


@contextmanager
def _folder(tokens: Ids) -> Iterator[Path]:
    """A folder beside the file that `tokens` is mapped from, where runs sweep what a killed one left; or elsewhere."""
    mapped = _mapping(tokens)
    beside = None if mapped is None else Path(mapped.filename).parent
    try:
        made = Path(tempfile.mkdtemp(prefix=".partial-count-", dir=beside))
    except OSError:
        made = Path(tempfile.mkdtemp(prefix="textgen-count-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _file_of(tokens: Ids, folder: Path) -> tuple[Path, int]:
    """A file that holds `tokens` (N,), and the byte where they begin: the one that they are mapped from, or a copy."""
    mapped = _mapping(tokens)
    if mapped is not None and tokens.flags.c_contiguous:
        begin = tokens.__array_interface__["data"][0] - mapped.__array_interface__["data"][0]
        return Path(mapped.filename), mapped.offset + begin
    path = folder / "tokens"
    with path.open("wb") as file:
        for start in range(0, len(tokens), 1 << 22):
            np.ascontiguousarray(tokens[start : start + (1 << 22)]).tofile(file)
    return path, 0


def _mapping(tokens: Any) -> Any:
    """The whole memory-mapped file that `tokens` is a part of, unless it was changed in memory alone; or None."""
    found: Any = None
    owner = tokens
    while isinstance(owner, np.ndarray):
        base: Any = owner.base
        if isinstance(owner, np.memmap) and isinstance(base, mmap.mmap):
            found = owner
        owner = base
    return (
        found
        if found is not None and found.mode in ("r", "r+") and found.filename is not None
        else None
    )


def release(tokens: Any) -> None:
    """Let go of the pages of a mapped file, which count as memory of this process until others need it."""
    mapped = _mapping(tokens)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        with suppress(OSError, ValueError):
            mapped.base.madvise(mmap.MADV_DONTNEED)
