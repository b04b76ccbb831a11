"""Continuous batching: rows join a running batch at any step, and leave it when they end.

A row waits for its turn. Then a Prefill feeds its prompt, chunk by chunk, and a Batch makes its
text in steps, together with others, until it ends or pauses.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final

from textgen.contracts.decoders import DecoderFactory
from textgen.generation.scheduling.prefill import Prefill
from textgen.generation.scheduling.prompt_cache import PromptCache
from textgen.generation.steps.batch import Batch
from textgen.generation.texts.results import FinishReason
from textgen.generation.texts.row import Row, failing, start_history

_RUN_SECONDS: Final = 0.005  # how long a call of `run` takes steps, if there is one batch
_MAX_UNSHARED: Final = 16  # rows that run at once, if each needs a batch of its own
_TURN_SECONDS: Final = 1.0  # after which a row may pause for another of its client
_LONGEST_RUNS: Final = 4  # a turn is as long as so many of the longest calls of `run` in it
_YIELD_DIVISOR: Final = 16  # at the end of a turn, a 16th of the lanes changes hands


class Scheduler:
    """Runs rows of one model.

    A lane is one sequence in a batch of the model. A row, which is a text, has one lane, or as many
    as its decoding strategy may ask for, such as its beams. Rows that run at once have at most
    `capacity` lanes together; a row with more runs alone.

    Clients share the lanes: of the rows that wait, the one whose client holds the fewest lanes
    comes first, and rows of a client that holds more pause for it. The rows of one client begin in
    the order in which they were submitted. While some of them wait, those that have run for the
    longest time pause for them, a few at the end of each turn.

    `submit` may be called from any thread; the other methods by one thread at a time. `cache` keeps
    the states after parts of prompts, for prompts that begin alike.
    """

    def __init__(
        self, factory: DecoderFactory, capacity: int, cache: PromptCache | None = None
    ) -> None:
        self._factory = factory
        self._capacity = capacity
        self._cache = cache
        self._waiting: deque[Row] = deque()
        self._prefills: list[Prefill] = []
        # One batch of sampled rows and one of rows with another strategy, or, where rows cannot
        # share a batch, one for each row.
        self._batches: list[Batch] = []
        self._chunk_seconds = 0.0  # how long the last chunk of a prompt took
        self._turn_began = 0.0
        self._longest_run = 0.0  # seconds, in this turn

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn. Its time begins."""
        row.start_clock()
        self._waiting.append(row)

    def run(self, seconds: float = _RUN_SECONDS) -> None:
        """Advance every row by a step, and then feed a chunk of the prompts.

        If there is one batch alone, it takes more steps, until a row ends or `seconds` are over.
        While prompts are fed, it has as much time as their last chunk took, so that a long prompt
        does not hold up the texts that are being made.
        """
        began = time.perf_counter()
        if self._waiting:
            self._start_waiting()
        self._step_batches(self._chunk_seconds if self._prefills else seconds)
        stepped = time.perf_counter()
        self._feed_prompts()
        ended = time.perf_counter()
        self._chunk_seconds = ended - stepped
        self._longest_run = max(self._longest_run, ended - began)

    def flush(self) -> None:
        """Hand all tokens made so far to their rows. Rows whose readers are far behind pause."""
        for batch in self._batches:
            batch.flush()
        self._drop_empty_batches()

    def abort(self, error: BaseException) -> None:
        """End every row with an error."""
        for row in (*self._waiting, *self._running()):
            row.error = error
        self._waiting.clear()
        self._prefills.clear()
        self._batches.clear()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._prefills or self._batches)

    @property
    def free_lanes(self) -> int:
        """Number of further lanes for which there is room now."""
        taken = sum(row.lanes for row in (*self._running(), *self._waiting))
        return max(0, self._lanes - taken)

    def has_room(self, row: Row) -> bool:
        """Whether a row would begin at once."""
        return self.is_idle or row.lanes <= self.free_lanes

    @property
    def _lanes(self) -> int:
        """Number of lanes that run at once."""
        return self._capacity if self._can_share else min(self._capacity, _MAX_UNSHARED)

    @cached_property
    def _can_share(self) -> bool:
        """Whether rows can share a batch."""
        return self._capacity > 1 and self._factory.can_share()

    def _running(self) -> list[Row]:
        """The rows whose prompts are being fed, or whose texts are being made."""
        groups: tuple[Batch | Prefill, ...] = (*self._batches, *self._prefills)
        return [row for group in groups for row in group.rows]

    def _start_waiting(self) -> None:
        """Begin to feed the prompts of the rows whose turn it is."""
        groups = defaultdict[object, list[Row]](list)
        for row in self._take_waiting():
            # A row that resumes from a state is fed by itself.
            can_share = self._can_share and row.start is None
            groups[row.is_sampled if can_share else row].append(row)
        for rows in groups.values():
            with failing(rows):
                self._prefills.append(Prefill(self._factory, rows, self._cache))

    def _take_waiting(self) -> list[Row]:
        """Take out of the waiting rows those whose turn it is. Running ones for which they leave no
        room pause, and wait again.
        """
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        waiting = [row for row in waiting if not self._end_early(row)]
        running = self._running()
        chosen = {*self._choose(self._in_order(running, waiting))}
        self._waiting.extend(row for row in waiting if row not in chosen)
        for batch in self._batches:
            self._waiting.extend(batch.pause({*running} - chosen))
        begun = [row for row in waiting if row in chosen]
        for row in begun:
            row.began = time.perf_counter()
        return begun

    def _in_order(self, running: Sequence[Row], waiting: Sequence[Row]) -> list[Row]:
        """The running rows, then those that wait. At the end of a turn some of the rows that have
        run for the longest time come last.
        """
        now = time.perf_counter()
        turn = max(_TURN_SECONDS, _LONGEST_RUNS * self._longest_run)
        if not waiting or now < self._turn_began + turn:
            return [*running, *waiting]
        self._turn_began, self._longest_run = now, 0.0
        yielding, lanes = list[Row](), max(self._lanes // _YIELD_DIVISOR, waiting[0].lanes)
        for row in sorted(running, key=lambda row: row.began):
            if lanes > 0 and row.began <= now - turn:
                yielding.append(row)
                lanes -= row.lanes
        return [*(row for row in running if row not in yielding), *waiting, *yielding]

    def _choose(self, rows: Sequence[Row]) -> Iterator[Row]:
        """The rows for which there is room, by the number of lanes of their client before them:
        every client's first row comes before any client's second.
        """
        counts, before = Counter[str](), dict[Row, int]()
        for row in rows:
            client = row.request.cache_salt.partition("\n")[0]
            before[row] = counts[client]
            counts[client] += row.lanes
        room = self._lanes
        for row in sorted(rows, key=before.__getitem__):
            if row.lanes > room and room < self._lanes:  # what is free is kept for it
                return
            room -= row.lanes
            yield row

    def _step_batches(self, seconds: float) -> None:
        """Take a step with each batch; if there is one alone, as many as fit into `seconds`."""
        deadline = 0.0  # which is over after one step
        if len(self._batches) == 1:
            deadline = time.perf_counter() + seconds
        for batch in self._batches:
            with failing(batch.rows):
                batch.advance(deadline)
        self._drop_empty_batches()

    def _drop_empty_batches(self) -> None:
        self._batches = [batch for batch in self._batches if batch.rows]

    def _feed_prompts(self) -> None:
        """Feed a chunk of the oldest prompts and one of the newest, so that a short prompt does not
        wait for long ones.
        """
        for prefill in dict.fromkeys((*self._prefills[:1], *self._prefills[-1:])):
            overdue = [self._end_early(row) for row in prefill.rows]
            if not all(overdue):
                with failing(prefill.rows):
                    if (batch := prefill.step()) is not None:
                        self._join(batch)
            if all(row.ended for row in prefill.rows):
                self._prefills.remove(prefill)

    def _join(self, batch: Batch) -> None:
        """Let rows whose prompts are fed join those of the same kind."""
        if not (rows := batch.rows):
            return
        for other in self._batches if self._can_share else ():
            if other.is_sampled == batch.is_sampled:
                with failing([*other.rows, *rows]):  # a join that fails may spoil both decoders
                    other.join(batch)
                return
        self._batches.append(batch)

    def _end_early(self, row: Row) -> bool:
        """End a row whose prompt is not fed, if its time is over or it needs no more tokens. Its
        state is then the one that it started from. Whether it has ended.
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
