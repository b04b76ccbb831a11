"""Continuous batching: requests join a running batch at any step, and leave it when they end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final, TypeAlias

import attrs
import numpy as np

from textgen.contracts import checks
from textgen.generation.batch import (
    Batch,
    Begin,
    begun,
    can_share,
    join_rows,
    keeps_shape,
    offers_rows,
    state_of,
    take_rows,
)
from textgen.generation.chain import rows_of
from textgen.generation.lanes import LaneBatch
from textgen.generation.prompt_cache import BLOCK, PromptCache, block_keys
from textgen.generation.results import FinishReason
from textgen.generation.row import Row, failing
from textgen.generation.sampling import log_softmax, to_numpy
from textgen.protocols import Array, Ids, Tensors

_ROUND: Final = 0.005  # seconds of steps, after which clocks have theirs
_TURN: Final = 0.05  # and at most, between two chunks of long prompts, or two turns of clients
_APART: Final = 0.01  # seconds between rows that join the others: each time costs a copy of them
_ALONE: Final = 16  # rows that cannot share a batch and run side by side


AnyBatch: TypeAlias = Batch | LaneBatch


def batch_class(row: Row) -> type[AnyBatch]:
    """The batches that a row can be in: those of strategies, or those of sampling alone."""
    return Batch if row.request.chain.strategy is None else LaneBatch


class Scheduler:
    """Runs rows of one model, up to `capacity` at once, in the order in which they were submitted,
    as far as clients have the same number of rows.

    `submit` may be called from any thread; all else by one thread at a time. States inside prompts
    are kept in `cache`.
    """

    def __init__(self, begin: Begin, capacity: int, cache: PromptCache | None = None) -> None:
        self._begin, self._most, self._given_cache = begin, capacity, cache
        self._waiting: deque[Row] = deque()
        self._prefills: deque[tuple[list[Row], Iterator[tuple[AnyBatch, Array] | None]]] = deque()
        self._admitted = 0.0  # when the last ones were
        self._fed = 0.0  # seconds that the last chunk took of a prompt, while there are more
        self._is_newest = False  # whose chunk is next: that of the newest prompt, or the oldest
        self._batches: list[AnyBatch] = []  # one of a class, if rows can share it; else one each

    @cached_property
    def _shares(self) -> bool:
        """Whether rows share a batch."""
        return self._most > 1 and can_share(self._begin)

    @property
    def _room(self) -> int:
        return self._most if self._shares else min(self._most, _ALONE)

    @cached_property
    def _cache(self) -> PromptCache | None:
        if self._given_cache is not None:
            self._given_cache.grows = not keeps_shape(self._begin)
        return self._given_cache

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn."""
        self._waiting.append(row)

    @property
    def waiting(self) -> int:
        """How many rows wait for their turn."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._prefills or self._batches)

    @property
    def free(self) -> int:
        """How many more rows it would take in at once."""
        return max(0, self._room - _lanes([*self._running(), *self._waiting]))

    def run(self, seconds: float = _ROUND) -> None:
        """Advance every row by a step, and more until one ends or some seconds are over.

        Prompts are fed last: the first tokens of newcomers are not kept back, nor the newcomers
        still to be fed. After a chunk of a long prompt, the rows have as long as it took before the
        next.
        """
        self._admit()
        if self._prefills:
            seconds = min(self._fed, _TURN) if self._fed > _ROUND else 0.0
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
        batches = [row for batch in self._batches for row in batch.rows]
        return batches + [row for rows, _ in self._prefills for row in rows]

    def _tidy(self) -> None:
        self._batches = [
            batch for batch in self._batches if not all(row.ended for row in batch.rows)
        ]

    def _admit(self) -> None:
        """Begin to feed the prompts of the waiting rows whose turn it is."""
        now = time.perf_counter()
        apart = _APART if _lanes(self._running()) < self._room else _TURN
        if not self._waiting or (self._batches and now < self._admitted + apart):
            return
        self._admitted = now
        together, alone = defaultdict[type, list[Row]](list), list[list[Row]]()
        for row in self._next():
            is_made = row.left <= 0 and not row.looks
            reason = "length" if is_made else row.out_of_time()
            if reason is not None or row.error is not None:
                self._end_unfed(row, reason)
                continue
            if self._shares and row.start is None:
                together[batch_class(row)].append(row)
            else:
                alone.append([row])
        for rows in [*alone, *together.values()]:
            self._prefills.append((rows, prefill(self._begin, rows, self._cache)))

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
        later = {*running} - chosen
        for batch in self._batches:
            if later and isinstance(batch, Batch):  # strategies keep their lanes to the end
                self._waiting.extend(batch.take_out(later))
        self._waiting.extend(row for row in waiting if row not in chosen)
        return [row for row in waiting if row in chosen]

    def _feed(self) -> None:
        """Feed a chunk of the prompts that came first, and in turn of those that came last, so that
        a short one does not wait for long ones.
        """
        place, self._is_newest = -self._is_newest, not self._is_newest
        rows, steps = self._prefills[place]
        for row in rows:
            if (reason := row.out_of_time()) is not None or row.error is not None:
                self._end_unfed(row, reason)
        with failing([*rows]):
            ready = None if all(row.ended for row in rows) else next(steps)
            if ready is not None:
                batch, logits = ready
                with failing(batch.rows):
                    batch.draw(logits)
                self._take_in(batch)
        if all(row.ended for row in rows):
            del self._prefills[place]

    def _take_in(self, batch: AnyBatch) -> None:
        """Put rows with fed prompts among the others."""
        if all(row.ended for row in batch.rows):
            return
        others = [other for other in self._batches if type(other) is type(batch)]
        if not (self._shares and others):
            self._batches.append(batch)
            return
        shared: Any = others[0]
        with failing([*shared.rows, *batch.rows]):  # neither decoder is known to be whole then
            shared.join(batch)

    def _end_unfed(self, row: Row, reason: FinishReason | None) -> None:
        """End a row whose prompt is not fed: its state is the one it started from."""
        with failing([row]):
            if row.request.keep_state and row.error is None:
                decoder = row.restore(self._begin(1))
                row.end = state_of(row, begun(row.request.chain, [row]), decoder, row.to_feed())
            row.reason = reason


@attrs.define(eq=False)
class _Prompt:
    """Equal prompts, which are fed once.

    ids    (T,) that are to be fed, after those of `state`
    keys   of the blocks in `ids`, in the cache
    state  of the decoder before them; None at the start
    """

    ids: Ids
    rows: list[Row]
    keys: list[bytes]
    state: Tensors | None


def _lanes(rows: Iterable[Row]) -> int:
    """How many rows of a decoder they need."""
    return sum(row.request.chain.lanes for row in rows)


def prefill(
    begin: Begin, rows: list[Row], cache: PromptCache | None
) -> Iterator[tuple[AnyBatch, Array] | None]:
    """Feed the prompts of rows side by side, a chunk with each step. Equal prompts are fed once.

    Each step gives the rows whose prompts are fed with it, if any, and the logits (B, V) of what
    follows. `rows` keeps the others. Rows that have ended are left out.
    """
    prompts = sorted(_prompts(rows, cache), key=lambda prompt: len(prompt.ids))
    decoder = rows[0].restore(_decoder(begin, prompts))  # one that resumes is fed by itself
    chain, fed = rows[0].request.chain, 0
    while rows:
        width = min(len(prompts[0].ids) - fed, BLOCK - fed % BLOCK)
        logits = decoder.extend(np.stack([prompt.ids[fed : fed + width] for prompt in prompts]))
        checks.check_logits(logits, (len(prompts), chain.vocab_size), chain.model)
        fed += width
        if cache is not None:
            _keep_states(cache, decoder, prompts, fed)
        done = [
            (place, row)
            for place, prompt in enumerate(prompts)
            for row in prompt.rows
            if len(prompt.ids) == fed and not row.ended
        ]
        rest = [
            place
            for place, prompt in enumerate(prompts)
            if len(prompt.ids) > fed and not all(row.ended for row in prompt.rows)
        ]
        rows[:] = [row for place in rest for row in prompts[place].rows]
        for place, row in done:
            if row.looks:
                _look(row, rows_of(logits, np.array([place])))
        ready, places = None, [place for place, row in done if not row.looks]
        if places:
            is_all = places == [*range(len(prompts))]
            own = decoder if is_all else take_rows(begin, decoder, places)
            members = [row for _, row in done if not row.looks]
            batch = batch_class(members[0])(begin, own, members)
            ready = batch, rows_of(logits, np.array(places))
        if 0 < len(rest) < len(prompts):
            decoder = take_rows(begin, decoder, rest)
        prompts = [prompts[place] for place in rest]
        yield ready


def _prompts(rows: Iterable[Row], cache: PromptCache | None) -> Iterable[_Prompt]:
    """The different prompts of rows, each from the longest known state on."""
    made: dict[tuple[str, bytes], _Prompt] = {}
    for row in rows:
        ids, salt = row.to_feed(), row.request.cache_salt
        identity = salt, ids.tobytes()
        prompt = made.get(identity)
        if prompt is None:
            prompt = made[identity] = _Prompt(ids, [], [], None)
            if cache is not None and row.start is None:
                keys = block_keys(ids, salt)
                known, prompt.state = cache.longest(keys)
                prompt.ids, prompt.keys = ids[known * BLOCK :], keys[known:]
        prompt.rows.append(row)
    return made.values()


def _decoder(begin: Begin, prompts: Sequence[_Prompt]) -> Any:
    """A decoder with the state of each prompt."""
    known = [place for place, prompt in enumerate(prompts) if prompt.state is not None]
    if not known:
        return begin(len(prompts))
    states = [state for prompt in prompts if (state := prompt.state) is not None]
    others = len(prompts) - len(known)
    decoder = begin(1)
    decoder.write_state(states[0])
    for state in states[1:]:  # of any lengths, where states grow
        other = begin(1)
        other.write_state(state)
        join_rows(decoder, other)
    if not others:
        return decoder
    join_rows(decoder, begin(others))
    new = [place for place, prompt in enumerate(prompts) if prompt.state is None]
    return take_rows(begin, decoder, np.argsort(known + new).tolist())


def _keep_states(cache: PromptCache, decoder: Any, prompts: Sequence[_Prompt], fed: int) -> None:
    """Keep the states of prompts at the end of a block."""
    block, rest = divmod(fed, BLOCK)
    places = [
        place
        for place, prompt in enumerate(prompts)
        if len(prompt.keys) == block or (len(prompt.keys) > block and not cache.grows)
    ]
    if block and not rest and places:
        whole = {} if offers_rows(decoder) else decoder.read_state()
        for place in places:
            own = {name: array[place : place + 1].copy() for name, array in whole.items()}
            own = own or decoder.take([place]).read_state()
            cache.keep(prompts[place].keys[block - 1], own)


def _look(row: Row, logits: Array) -> None:
    """End a row with what may follow its prompt, by logits (1, V)."""
    chain = row.request.chain
    with failing([row]):
        row.open(logits[0])
        before = log_softmax(to_numpy(logits)[0])
        if row.ending and row.is_early:
            logits[:, list(row.ending)] = -np.inf
        after = to_numpy(chain.sampled(logits, begun(chain, [row])))[0].astype(np.float64)
        row.following = before, log_softmax(after) if after.max() > -np.inf else after
        row.reason = "length"
