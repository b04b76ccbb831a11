"""Continuous batching: requests join a running batch at any step, and leave it when they end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import numpy as np

from textgen.contracts import checks
from textgen.contracts.checks import FAILURES
from textgen.generation.batch import Batch, DecoderRows, begun, can_share, state_of
from textgen.generation.chain import rows_of
from textgen.generation.results import FinishReason, GenerationState
from textgen.generation.row import Row
from textgen.plugin.component import Offer
from textgen.protocols import Array, Ids, Model

PREFILL: Final = 1024  # prompt tokens fed at once, after which the running rows, clock and caller have their turn


class Prefill:
    """Feeds the prompts of newcomers side by side, a chunk at a time. Equal prompts are fed once."""

    def __init__(self, model: Model, offer: Offer, rows: list[Row]) -> None:
        self._offer = offer
        prompts: dict[bytes | int, tuple[Ids, list[Row]]] = {}
        for row in rows:
            ids = row.to_feed()
            key = ids.tobytes() if row.start is None and len(rows) > 1 else id(row)
            prompts.setdefault(key, (ids, []))[1].append(row)
        self._prompts = sorted(prompts.values(), key=lambda each: len(each[0]))
        self._decoder = DecoderRows.begin(model, offer, len(self._prompts))
        if rows[0].start is not None:
            rows[0].start.restore(self._decoder)
        self._fed = 0

    @property
    def rows(self) -> list[Row]:
        """Those whose prompts are not fed yet."""
        return [row for _, rows in self._prompts for row in rows]

    def advance(self) -> tuple[Batch, Array] | None:
        """Feed a chunk. The rows whose prompts are fed now, if any, with the logits (B, V) of what follows."""
        found = [(row, row.out_of_time()) for row in self.rows]
        self.end([(row, reason) for row, reason in found if reason or row.error is not None])
        if not self._prompts:
            return None
        width = min(len(self._prompts[0][0]) - self._fed, PREFILL)
        chunk = np.stack([ids[self._fed : self._fed + width] for ids, _ in self._prompts])
        logits = self._decoder.extend(chunk)
        vocab_size = self._prompts[0][1][0].request.chain.vocab_size
        checks.check_logits(logits, (len(self._prompts), vocab_size), self._offer)
        self._fed += width
        done = sum(len(ids) == self._fed for ids, _ in self._prompts)
        return self._ready(done, logits) if done else None

    def end(self, rows: Iterable[tuple[Row, FinishReason | None]]) -> None:
        """End rows before their prompts are fed."""
        for row, reason in rows:
            place = next(i for i, (_, sharing) in enumerate(self._prompts) if row in sharing)
            ids, sharing = self._prompts[place]
            if row.request.keep_state and row.error is None:
                row.end = _unfed(row, self._decoder, place, ids[self._fed :])
            row.reason = reason
            sharing.remove(row)
        kept = [i for i, (_, sharing) in enumerate(self._prompts) if sharing]
        if len(kept) < len(self._prompts):
            self._prompts = [self._prompts[i] for i in kept]
            if kept:
                self._decoder = self._decoder.take(kept)

    def _ready(self, done: int, logits: Array) -> tuple[Batch, Array]:
        """Take the first `done` prompts out."""
        ready, self._prompts = self._prompts[:done], self._prompts[done:]
        rows = [row for _, sharing in ready for row in sharing]
        decoder = self._decoder
        if self._prompts or len(rows) > len(ready):
            places = [i for i, (_, sharing) in enumerate(ready) for _ in sharing]
            logits, decoder = rows_of(logits, np.array(places)), decoder.take(places)
            if self._prompts:
                self._decoder = self._decoder.take(range(done, done + len(self._prompts)))
        return Batch(decoder, rows), logits


class Scheduler:
    """Runs rows of one model, up to `capacity` at once, in the order in which they were submitted. Of rows that cannot
    share a batch, up to `alone` run side by side.

    `submit` and `cancel` may be called from any thread; all else by one thread at a time.
    """

    def __init__(self, model: Model, offer: Offer, capacity: int, alone: int = 1) -> None:
        self._model, self._offer, self._capacity, self._alone = model, offer, capacity, alone
        self._waiting: deque[Row] = deque()
        self._cancelled: deque[Row] = deque()
        self._news: deque[Row] = deque()  # what was submitted or cancelled since the last step
        self._prefills: deque[Prefill] = deque()
        self._batches: list[
            Batch
        ] = []  # the first is shared, if rows can share one; the others are rows alone
        self._shares: bool | None = None

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn."""
        self._waiting.append(row)
        self._news.append(row)

    def cancel(self, row: Row) -> None:
        """End a row at the next step, wherever it is."""
        self._cancelled.append(row)
        self._news.append(row)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._cancelled or self._prefills or self._batches)

    @property
    def waiting(self) -> int:
        """How many rows wait for their turn."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """How many more rows it would take in at once."""
        return self._capacity - len(self._rows()) - len(self._waiting)

    def run(self, until: float = 0.0) -> None:
        """Advance every row by a step, and more until one ends or time.perf_counter() reaches `until`."""
        self._news.clear()
        while self._cancelled:
            self._end(self._cancelled.popleft())
        self._admit()
        running, began = tuple(self._batches), bool(self._prefills)
        if began:
            self._feed(self._prefills[0])
        if until == math.inf:
            running, began = tuple(self._batches), bool(self._prefills)
        if (
            began or len(running) > 1
        ):  # the first tokens of newcomers are not kept back, nor those still to be fed
            until = 0.0
        for batch in running:
            self._guarded(batch.rows, partial(batch.advance, until, self._news))
        self._batches = [batch for batch in self._batches if batch.rows]

    def flush(self) -> None:
        """Hand all tokens made so far to their rows."""
        for batch in self._batches:
            batch.flush()

    def pause_unread(self, most: int) -> None:
        """Take rows out of which more than `most` tokens are not read; submitted again, they go on from there."""
        for batch in self._batches:
            for row in [r for r in batch.rows if r.made - r.taken > most and not r.whole]:
                batch.end(row, None)
                row.start, row.ids, row.end, row.paused = row.end, row.ids[:0], None, True
        self._batches = [batch for batch in self._batches if batch.rows]

    def abort(self, error: BaseException) -> None:
        """End every row with an error."""
        for row in [*self._waiting, *self._rows()]:
            row.error = error
        self._waiting.clear()
        self._prefills.clear()
        self._batches.clear()

    def _rows(self) -> list[Row]:
        batches = [row for batch in self._batches for row in batch.rows]
        return batches + [row for prefill in self._prefills for row in prefill.rows]

    def _admit(self) -> None:
        """Begin to feed the prompts of waiting rows, as far as there is room."""
        if not self._waiting:
            return
        running = self._rows()
        room, alone = self._capacity - len(running), sum(map(self._is_alone, running))
        shared: list[Row] = []
        alone_or_resumed: list[list[Row]] = []
        while self._waiting and room > 0:
            row = self._waiting[0]
            reason = "length" if row.left <= 0 else row.out_of_time()
            if not row.ended and reason is not None:
                self._guarded([row], partial(self._end_unfed, row, reason))
            elif not row.ended:
                is_alone = self._is_alone(row)
                if is_alone and alone >= self._alone:
                    break
                alone += is_alone
                room -= 1
                if is_alone or row.start is not None:
                    alone_or_resumed.append([row])
                else:
                    shared.append(row)
            self._waiting.popleft()
        for rows in [shared, *alone_or_resumed] if shared else alone_or_resumed:
            self._guarded(rows, partial(self._begin, rows))

    def _begin(self, rows: list[Row]) -> None:
        self._prefills.append(Prefill(self._model, self._offer, rows))

    def _feed(self, prefill: Prefill) -> None:
        def feed() -> None:
            ready = prefill.advance()
            if ready is not None:
                batch, logits = ready
                self._guarded(batch.rows, partial(batch.draw, logits))
                self._take_in(batch)

        self._guarded(prefill.rows, feed)
        if not any(not row.ended for row in prefill.rows):
            self._prefills.remove(prefill)

    def _take_in(self, batch: Batch) -> None:
        """Put rows with fed prompts among the others."""
        if not batch.rows:
            return
        shared = next((other for other in self._batches if not self._is_alone(other.rows[0])), None)
        if shared is None or self._is_alone(batch.rows[0]):
            self._batches.append(batch)
        else:  # where joining fails, no row of either has a decoder that is known to be whole
            self._guarded([*shared.rows, *batch.rows], partial(shared.join, batch))

    def _is_alone(self, row: Row) -> bool:
        """Whether a row may not share a batch."""
        if self._capacity == 1:
            return True
        if self._shares is None:
            self._shares = can_share(self._model, self._offer)
        return not self._shares

    def _end(self, row: Row) -> None:
        """End a row because it was cancelled."""
        if row.ended:
            return
        for batch in self._batches:
            if row in batch.rows:
                batch.end(row, "cancelled")
        for prefill in self._prefills:
            if row in prefill.rows:
                prefill.end([(row, "cancelled")])
        if not row.ended:  # it waits still
            self._end_unfed(row, "cancelled")
        self._batches = [batch for batch in self._batches if batch.rows]
        self._prefills = deque(prefill for prefill in self._prefills if prefill.rows)

    def _end_unfed(self, row: Row, reason: FinishReason) -> None:
        if row.request.keep_state:
            decoder = DecoderRows.begin(self._model, self._offer, 1)
            if row.start is not None:
                row.start.restore(decoder)
            row.end = _unfed(row, decoder, 0, row.to_feed())
        row.reason = reason

    def _guarded(self, rows: list[Row], work: Callable[[], object]) -> None:
        """Do work for rows; what goes wrong in it is the error of each of them."""
        affected = list(rows)
        try:
            work()
        except FAILURES as error:
            for row in affected:
                if not row.ended:
                    row.error = error
            for batch in self._batches:
                batch.rows = [row for row in batch.rows if not row.ended]


def _unfed(row: Row, decoder: DecoderRows, place: int, pending: Ids) -> GenerationState:
    """The state of a row that has drawn nothing yet."""
    return state_of(row, begun(row.request.chain, [row]), decoder.take([place]), pending)
