"""Continuous batching: requests join a running batch at any step, and leave it when they end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from functools import cached_property
from typing import Final

from textgen.contracts.decoders import DecoderFactory
from textgen.generation.batch import Batch
from textgen.generation.prefill import Prefill
from textgen.generation.prompt_cache import PromptCache
from textgen.generation.results import FinishReason
from textgen.generation.row import Row, failing, start_history

_ROUND_SECONDS: Final = 0.005  # of steps in a call of `run`
_SECONDS_BETWEEN_JOINS: Final = 0.02  # a batch is copied each time that rows join it
_MAX_ALONE: Final = 16  # rows at once, if each needs a batch of its own


class Scheduler:
    """Runs rows of one model, up to `capacity` at once. Clients take turns; the rows of one client
    begin in the order in which they were submitted.

    `submit` may be called from any thread; all else by one thread at a time. The states after parts
    of prompts are kept in `cache`.
    """

    def __init__(
        self, factory: DecoderFactory, capacity: int, cache: PromptCache | None = None
    ) -> None:
        self._factory = factory
        self._capacity = capacity
        self._given_cache = cache
        self._waiting: deque[Row] = deque()
        self._prefills: list[Prefill] = []
        self._batches: list[Batch] = []  # two if rows can share them: sampled, and of strategies
        self._last_admission = 0.0  # by time.perf_counter
        self._chunk_seconds = 0.0  # that the last chunk of a prompt took; 0 if no prompt is left

    @cached_property
    def _shares(self) -> bool:
        """Whether rows can share a batch."""
        return self._capacity > 1 and self._factory.can_share()

    @property
    def _room(self) -> int:
        """Number of rows that run at once."""
        return self._capacity if self._shares else min(self._capacity, _MAX_ALONE)

    @cached_property
    def _cache(self) -> PromptCache | None:
        """The cache, once it has been told whether states grow with the prompt."""
        if self._given_cache is not None:
            self._given_cache.grows = not self._factory.keeps_shape()
        return self._given_cache

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn."""
        self._waiting.append(row)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._prefills or self._batches)

    @property
    def free(self) -> int:
        """Number of further rows that could begin at once."""
        return max(0, self._room - _lanes([*self._running(), *self._waiting]))

    def run(self, seconds: float = _ROUND_SECONDS) -> None:
        """Advance every row by a step; a batch that runs alone by more steps, until a row ends or
        `seconds` are over. Then feed a chunk of the prompts.

        Between two chunks of a long prompt, the batch has as much time as the first of them took.
        """
        self._admit()
        runs_alone = len(self._batches) == 1
        granted = self._chunk_seconds if self._prefills else seconds
        deadline = time.perf_counter() + granted if runs_alone else 0.0  # 0: after one step
        for batch in self._batches:
            with failing(batch.rows):
                batch.advance(deadline)
        self._tidy()
        if self._prefills:
            begun = time.perf_counter()
            self._feed()
            self._chunk_seconds = time.perf_counter() - begun if self._prefills else 0.0

    def flush(self) -> None:
        """Hand all tokens made so far to their rows. Rows whose readers are far behind pause."""
        for batch in self._batches:
            batch.flush()
            batch.pause_unread()
        self._tidy()

    def abort(self, error: BaseException) -> None:
        """End every row with an error."""
        for row in [*self._waiting, *self._running()]:
            row.error = error
        self._waiting.clear()
        self._prefills.clear()
        self._batches.clear()

    def _running(self) -> list[Row]:
        groups: tuple[Batch | Prefill, ...] = (*self._batches, *self._prefills)
        return [row for group in groups for row in group.rows]

    def _tidy(self) -> None:
        self._batches = [batch for batch in self._batches if batch.rows]

    def _admit(self) -> None:
        """Begin to feed the prompts of the waiting rows whose turn it is."""
        now = time.perf_counter()
        is_too_soon = now < self._last_admission + _SECONDS_BETWEEN_JOINS
        if not self._waiting or (self._batches and is_too_soon):
            return
        self._last_admission = now
        together, alone = defaultdict[bool, list[Row]](list), list[list[Row]]()
        for row in self._next():
            if row.parked is not None:
                batch, row.parked = row.parked, None
                self._take_in(batch)
            elif not self._end_overdue(row):
                if self._shares and row.start is None:
                    together[row.is_sampled].append(row)
                else:
                    alone.append([row])
        for rows in [*alone, *together.values()]:
            with failing(rows):
                self._prefills.append(Prefill(self._factory, rows, self._cache))

    def _next(self) -> list[Row]:
        """Take out of the waiting rows those that may begin.

        Every client's first row comes before any client's second, and so on. A row that runs, but
        for which this leaves no room, waits again.
        """
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        running, turns = self._running(), Counter[str]()
        ranks = dict[Row, int]()
        for row in (*running, *waiting):
            client = row.request.cache_salt.partition("\n")[0]
            ranks[row] = turns[client]
            turns[client] += 1
        chosen, room = set[Row](), self._room
        for row in sorted(ranks, key=ranks.__getitem__):
            if room > 0:
                chosen.add(row)
                room -= row.request.chain.lanes
        for batch in self._batches:
            self._waiting.extend(batch.take_out({*running} - chosen))
        self._waiting.extend(row for row in waiting if row not in chosen)
        return [row for row in waiting if row in chosen]

    def _feed(self) -> None:
        """Feed a chunk of the oldest prompts and one of the newest, so that a short prompt does not
        wait for long ones.
        """
        for prefill in dict.fromkeys((self._prefills[0], self._prefills[-1])):
            overdue = [self._end_overdue(row) for row in prefill.rows]
            if not all(overdue):
                with failing(prefill.rows):
                    if (batch := prefill.step()) is not None:
                        self._take_in(batch)
            if all(row.ended for row in prefill.rows):
                self._prefills.remove(prefill)

    def _take_in(self, batch: Batch) -> None:
        """Let rows whose prompts have been fed join the others."""
        if not (rows := batch.rows):
            return
        for other in self._batches if self._shares else ():
            if other.is_sampled == batch.is_sampled:
                with failing([*other.rows, *rows]):  # a join that fails may spoil both decoders
                    other.join(batch)
                return
        self._batches.append(batch)

    def _end_overdue(self, row: Row) -> bool:
        """Whether a row whose prompt is not fed has ended: here if its time is over, or if it needs
        no more tokens. Its state is then the one that it started from.
        """
        reason: FinishReason | None = "length" if row.left <= 0 else row.out_of_time()
        if reason is not None:
            with failing([row]):
                if row.request.keep_state:
                    decoder, history = row.restore(self._factory()), start_history([row])
                    row.save(decoder.read_state(), history.save_row(0), row.to_feed())
                    row.end = row.resumed or row.end
                row.reason = reason
        return row.ended


def _lanes(rows: Iterable[Row]) -> int:
    """Number of rows of a decoder that texts need: those of strategies need several."""
    return sum(row.request.chain.lanes for row in rows)
