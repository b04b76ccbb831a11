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

_ROUND_SECONDS: Final = 0.005  # seconds of steps, after which clocks have theirs
_SECONDS_BETWEEN_JOINS: Final = (
    0.02  # seconds between rows that join the others: each time costs a copy of them
)
_MAX_ALONE: Final = 16  # rows that cannot share a batch and run side by side


class Scheduler:
    """Runs rows of one model, up to `capacity` at once, in the order in which they were submitted,
    as far as clients have the same number of rows.

    `submit` may be called from any thread; all else by one thread at a time. States inside prompts
    are kept in `cache`.
    """

    def __init__(
        self, factory: DecoderFactory, capacity: int, cache: PromptCache | None = None
    ) -> None:
        self._factory, self._most, self._given_cache = factory, capacity, cache
        self._waiting: deque[Row] = deque()
        self._prefills: list[Prefill] = []
        self._admitted = 0.0  # when the last ones were
        self._fed = 0.0  # seconds that the last chunk took of a prompt, while there are more
        # One for sampled texts and one for those of strategies, if rows can share it; else one each
        self._batches: list[Batch] = []

    @cached_property
    def _shares(self) -> bool:
        """Whether rows share a batch."""
        return self._most > 1 and self._factory.can_share()

    @property
    def _room(self) -> int:
        return self._most if self._shares else min(self._most, _MAX_ALONE)

    @cached_property
    def _cache(self) -> PromptCache | None:
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
        """Number of rows that it would take in at once."""
        return max(0, self._room - _lanes([*self._running(), *self._waiting]))

    def run(self, seconds: float = _ROUND_SECONDS) -> None:
        """Advance every row by a step, and more until one ends or some seconds are over.

        Prompts are fed last: the first tokens of newcomers are not kept back, nor the newcomers
        still to be fed. After a chunk of a long prompt, the rows have as long as it took before the
        next.
        """
        self._admit()
        seconds = self._fed if self._prefills else seconds
        until = 0.0 if len(self._batches) > 1 else time.perf_counter() + seconds
        for batch in self._batches:
            with failing(batch.rows):
                batch.advance(until)
        self._tidy()
        if self._prefills:
            begun = time.perf_counter()
            self._feed()
            self._fed = time.perf_counter() - begun if self._prefills else 0.0

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
        if not self._waiting or (self._batches and now < self._admitted + _SECONDS_BETWEEN_JOINS):
            return
        self._admitted = now
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
        """Take the rows out of those that wait for which there is room, or will be.

        Clients take turns: rows of one that has more than another are taken back for it.
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
        """Feed a chunk of the prompts that came first, and of those that came last, so that a short
        one does not wait for long ones.
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
        """Put rows with fed prompts among the others."""
        if not (rows := batch.rows):
            return
        for other in self._batches if self._shares else ():
            if other.is_sampled == batch.is_sampled:
                with failing([*other.rows, *rows]):  # neither decoder is known to be whole then
                    other.join(batch)
                return
        self._batches.append(batch)

    def _end_overdue(self, row: Row) -> bool:
        """End a row whose prompt is not fed if its time is over, or if it needs no more tokens: its
        state is the one it started from. Whether it has ended.
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
    """Number of rows of a decoder that they need."""
    return sum(row.request.chain.lanes for row in rows)
