"""Rows that generate together: one decoder, a step at a time for all of them."""

from __future__ import annotations

import time
from collections.abc import Container, Sequence, Sized
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts import checks
from textgen.contracts.checks import FAILURES, begin_decoding
from textgen.generation.chain import END, Chain, rows_of
from textgen.generation.results import (
    FinishReason,
    GenerationState,
    TokenLogprobs,
    reading_state,
)
from textgen.generation.row import ENDLESS, Row
from textgen.generation.sampling import SequenceHistory, to_numpy
from textgen.plugin.component import Offer
from textgen.protocols import Array, Ids, Model, Tensors

_LONGEST: Final = 256  # greedy steps in one call of the decoder
_TO_STOP: Final = 8  # where texts may stop: tokens beyond the stop are thrown away
_FIRST: Final = 4
_SECONDS: Final = 0.01  # that a call may take, after which clock and caller have their turn


@attrs.define(eq=False)
class DecoderRows:
    """The decoder of a batch. Rows are taken out and put together by the decoder itself where it offers that
    (textgen.protocols.RowDecoder), and by way of its state where every row's state has one shape.
    """

    inner: Any
    offer: Offer
    model: Model

    @classmethod
    def begin(cls, model: Model, offer: Offer, size: int) -> DecoderRows:
        """`size` rows at the start state."""
        return cls(begin_decoding(model, size, offer), offer, model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def take(self, rows: Sequence[int]) -> DecoderRows:
        """Another decoder with these rows, in this order; a row may be taken twice."""
        if offers_rows(self.inner):
            return DecoderRows(self.inner.take(rows), self.offer, self.model)
        state = self.read_state()
        other = DecoderRows.begin(self.model, self.offer, len(rows))
        other.write_state({name: array[rows] for name, array in state.items()})
        return other

    def join(self, other: DecoderRows) -> None:
        """Append the rows of another decoder of the same model, which is not used any more."""
        if offers_rows(self.inner):
            self.inner.join(other.inner)
        else:
            ours, theirs = self.read_state(), other.read_state()
            self.write_state({name: np.concatenate([ours[name], theirs[name]]) for name in theirs})


def offers_rows(decoder: Any) -> bool:
    """Whether it is a RowDecoder."""
    return callable(getattr(decoder, "take", None)) and callable(getattr(decoder, "join", None))


def can_share(model: Model, offer: Offer) -> bool:
    """Whether rows of this model can share a batch."""
    return offers_rows(begin_decoding(model, 1, offer)) or keeps_shape(model, offer)


def keeps_shape(model: Model, offer: Offer) -> bool:
    """Whether the state of a row has the same shapes however long it is."""
    decoder = begin_decoding(model, 1, offer)
    before = _shapes(decoder.read_state())
    decoder.extend(np.zeros((1, 1), np.int64))
    return before == _shapes(decoder.read_state())


def _shapes(state: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in state.items()}


@attrs.define(eq=False)
class Group:
    """The rows of a batch that share a chain: their places in it, ascending, and their history in that order."""

    chain: Chain
    history: SequenceHistory
    rows: Ids
    failed: bool = False

    @classmethod
    def of(cls, rows: Sequence[Row]) -> list[Group]:
        """The groups of newcomers."""
        places: dict[Chain, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.request.chain, []).append(place)
        return [
            cls(chain, begun(chain, [rows[i] for i in mine]), np.array(mine))
            for chain, mine in places.items()
        ]

    def pick(self, logits: Array, rows: Sequence[Row]) -> Ids:
        """A token (B,) for each row of logits (B, V). An error at one row is its `error`, and no other's."""
        numbers = self.history.numbers()[:, 0]
        try:
            return self.chain.pick(logits, self.history, numbers)
        except FAILURES as error:
            self.failed = True
            if len(self.rows) == 1:
                rows[int(self.rows[0])].error = error
                return np.zeros(1, np.int64)
        tokens = np.zeros(len(self.rows), np.int64)
        for i, place in enumerate(self.rows.tolist()):
            one, history = slice(i, i + 1), self.history.rows([i])
            try:
                tokens[one] = self.chain.pick(logits[one], history, numbers[one])
                self.history.put([i], history)
            except FAILURES as error:
                rows[place].error = error
        return tokens

    def keep(self, places: dict[int, int]) -> bool:
        """Keep the rows that have a new place. Whether any is left."""
        kept = [i for i, row in enumerate(self.rows.tolist()) if row in places]
        self.history = self.history.rows(kept)
        self.rows = np.array([places[int(self.rows[i])] for i in kept], np.int64)
        return bool(kept)


def begun(chain: Chain, rows: Sequence[Row]) -> SequenceHistory:
    """The history of rows that have drawn nothing yet."""
    history = chain.begin(
        [row.ids for row in rows], [(row.request.seed, row.index) for row in rows]
    )
    for place, row in enumerate(rows):
        if row.start is not None:
            with reading_state():
                history.load_row(place, row.start.history)
    return history


class Batch:
    """Rows whose prompts are fed. `flush` hands their tokens over to them."""

    def __init__(self, decoder: DecoderRows, rows: Sequence[Row]) -> None:
        self.decoder, self.rows = decoder, list(rows)
        self._groups = Group.of(rows)
        self._feed = np.zeros((len(rows), 1), np.int64)
        self._made: list[Ids] = []  # (B, n) tokens that the rows do not have yet
        self._count = 0  # of them, for each row
        self._chunk = _FIRST
        self._plan()

    def advance(self, until: float, news: Sized = ()) -> None:
        """Take a step, and more until a row ends, time.perf_counter() reaches `until`, or there is news."""
        while True:
            ended = self._out_of_time()
            if not ended:
                if (found := self._greedy_steps()) is not None:
                    ended = found
                elif len(self.rows) == 1 and not self._noting:
                    ended = self._steps_alone(until, news)
                else:
                    ended = self._draw(self.decoder.inner.extend(self._feed))
            if ended:
                self._leave(ended)
            if ended or news or time.perf_counter() >= until:
                return

    def draw(self, logits: Array) -> None:
        """Draw the tokens that follow the prompts."""
        self._leave(self._draw(logits))

    def flush(self, ended: Container[int] = ()) -> None:
        """Hand the tokens made so far to the rows; those that a sampler has just ended have none in the last step."""
        if self._made:
            made = np.concatenate(self._made, axis=1)
            self._made, self._count = [], 0
            for i, (row, ids) in enumerate(zip(self.rows, made, strict=True)):
                row.add(ids[:-1] if i in ended else ids)

    def join(self, other: Batch) -> None:
        """Take the rows of another batch in."""
        self.flush()
        other.flush()
        size = len(self.rows)
        self.decoder.join(other.decoder)
        for group in other._groups:
            group.rows = group.rows + size
            mine = next((mine for mine in self._groups if mine.chain is group.chain), None)
            if mine is None:
                self._groups.append(group)
            else:
                mine.history.join(group.history)
                mine.rows = np.concatenate([mine.rows, group.rows])
        self.rows += other.rows
        self._feed = np.concatenate([self._feed, other._feed])
        self._plan()

    def end(self, row: Row, reason: FinishReason | None) -> None:
        """End a row now; without a reason it only leaves, with its state as `end`."""
        self._leave({self.rows.index(row): reason}, leave_state=reason is None)

    def _plan(self) -> None:
        """Find what the next steps have to look at, once for as long as no row comes or goes."""
        rows = list(enumerate(self.rows))
        self._left = min((row.left for row in self.rows), default=ENDLESS)
        self._watched = [(i, r) for i, r in rows if r.deadline is not None or r.request.cancelled]
        self._stopping = [(i, row) for i, row in rows if row.may_stop]
        self._early = [
            (i, row)
            for i, row in self._stopping
            if row.ending and row.made < row.options.min_new_tokens
        ]
        self._noting = [(i, row) for i, row in rows if row.request.top is not None]
        self._may_end = any(link.ends for group in self._groups for link in group.chain.links)
        self._goes_ahead = (
            not self._noting
            and callable(getattr(self.decoder.inner, "continue_greedily", None))
            and all(group.chain.plainly_greedy for group in self._groups)
        )

    def _out_of_time(self) -> dict[int, FinishReason | None]:
        found = ((i, row.out_of_time(), row.error) for i, row in self._watched)
        return {i: reason for i, reason, error in found if reason is not None or error is not None}

    def _draw(self, logits: Array) -> dict[int, FinishReason | None]:
        """Draw a token for each row of logits (B, V), and say which rows end with it."""
        chain = self.rows[0].request.chain
        checks.check_logits(logits, (len(self.rows), chain.vocab_size), chain.model)
        kept = to_numpy(logits).copy() if self._noting else None  # what follows writes into it
        for i, row in self._early:
            if row.made + self._count < row.options.min_new_tokens:
                for token in row.ending:
                    logits[i, token] = -np.inf
        tokens = self._pick(logits)
        self._feed[:, 0] = tokens
        self._note(tokens[:, None])
        ended: dict[int, FinishReason | None] = {}
        if self._may_end:
            ended |= dict.fromkeys(np.flatnonzero(tokens == END).tolist(), "end")
        if any(group.failed for group in self._groups):
            ended |= {i: None for i, row in enumerate(self.rows) if row.error is not None}
        if ended:
            self.flush(ended)
        if kept is not None:
            for i, row in self._noting:
                assert row.request.top is not None
                if i not in ended:
                    row.logprobs.append(TokenLogprobs.of(kept[i], int(tokens[i]), row.request.top))
        for i, row in self._stopping:
            if i not in ended and (reason := row.ends_with(int(tokens[i]))) is not None:
                ended[i] = reason
        return self._full(ended)

    def _pick(self, logits: Array) -> Ids:
        """The tokens (B,), drawn group by group."""
        if len(self._groups) == 1:
            return self._groups[0].pick(logits, self.rows)
        tokens = np.empty(len(self.rows), np.int64)
        for group in self._groups:
            tokens[group.rows] = group.pick(rows_of(logits, group.rows), self.rows)
        return tokens

    def _note(self, tokens: Ids) -> None:
        """Keep tokens (B, n): to hand them to many rows takes longer."""
        self._made.append(tokens)
        self._count += tokens.shape[1]
        self._left -= tokens.shape[1]

    def _full(self, ended: dict[int, FinishReason | None]) -> dict[int, FinishReason | None]:
        """With the rows that have all the tokens that they may have."""
        if self._left <= 0:
            self.flush()
            for i, row in enumerate(self.rows):
                if row.left <= 0:
                    ended.setdefault(i, "length")
        return ended

    def _steps_alone(self, until: float, news: Sized) -> dict[int, FinishReason | None]:
        """Steps of a batch of one, with as little as possible around each of them."""
        self.flush()
        row, history, feed, tokens = self.rows[0], self._groups[0].history, self._feed, list[int]()
        chain = row.request.chain
        extend, pick, expected = self.decoder.inner.extend, chain.pick, (1, chain.vocab_size)
        stop, least = row.ending, row.options.min_new_tokens - row.made
        watched, stopping = bool(self._watched), bool(self._stopping)
        numbers = history.numbers()[0, : self._left]
        ended: dict[int, FinishReason | None] = {}
        try:
            for step in range(len(numbers)):
                if watched and step and (ended := self._out_of_time()):
                    break
                logits = extend(feed)
                if not step or logits.shape != expected:
                    checks.check_logits(logits, expected, chain.model)
                if step < least:
                    logits[0, list(stop)] = -np.inf
                token = int(pick(logits, history, numbers[step : step + 1])[0])
                feed[0, 0] = token
                if token == END:
                    ended = {0: "end"}
                    break
                tokens.append(token)
                if stopping and (reason := row.ends_with(token)) is not None:
                    ended = {0: reason}
                    break
                if news or time.perf_counter() >= until:
                    break
        finally:  # what was made before a failure counts
            row.add(np.array(tokens, np.int64))
            self._left -= len(tokens)
        return self._full(ended)

    def _greedy_steps(self) -> dict[int, FinishReason | None] | None:
        """As many greedy steps as the decoder takes by itself (textgen.protocols.GreedyDecoder), and the rows that
        end; None if it takes none.
        """
        if not self._goes_ahead:
            return None
        if self._stopping:
            self.flush()
        if any(row.made < row.options.min_new_tokens for _, row in self._early):
            return None
        keeping = [i for i, row in self._stopping if row.request.keep_state]
        before = self.decoder.take(keeping) if keeping else None
        fed = self._feed[:, 0].copy()
        ids = self._chosen(fed)
        count = ids.shape[1]
        if not count:
            self._goes_ahead = False
            return None
        self._feed[:, 0] = ids[:, -1]
        ended: dict[int, FinishReason | None] = {}
        used = [count] * len(self.rows)
        for i, row in self._stopping:
            for place, token in enumerate(ids[i].tolist(), 1):
                if (reason := row.ends_with(token)) is not None:
                    ended[i], used[i] = reason, place
                    break
        for i in ended:
            row, number = self.rows[i], used[i]
            if row.request.keep_state and number < count:
                assert before is not None
                decoder = before.take([keeping.index(i)])
                decoder.extend(np.append(fed[i], ids[i, : number - 1])[None])
                row.end = self._state(i, decoder, ids[i, number - 1 : number], number)
        for group in self._groups:
            group.history.arrays["lengths"] += count
        self._note(ids)
        if self._stopping:
            self._made, self._count = [], 0
            for row, mine, number in zip(self.rows, ids, used, strict=True):
                row.add(mine[:number])
        return self._full(ended)

    def _chosen(self, fed: Ids) -> Ids:
        """The decoder's own greedy tokens (B, n): more with each call, while one does not take long."""
        longest = min(_TO_STOP if self._stopping else _LONGEST, self._left)
        chain, asked, begun_at = self.rows[0].request.chain, self._chunk, time.perf_counter()
        asked = min(asked, longest)
        ids: Ids = self.decoder.inner.continue_greedily(fed, asked, chain.forbidden)
        checks.check_greedy(ids, (len(fed), asked), chain.vocab_size, chain.model)
        if time.perf_counter() - begun_at < _SECONDS / 2:
            self._chunk = min(2 * asked, _LONGEST)
        return ids

    def _leave(self, ended: dict[int, FinishReason | None], *, leave_state: bool = False) -> None:
        """Take rows out."""
        if not ended:
            return
        self.flush()
        for i, reason in ended.items():
            row = self.rows[i]
            if (row.request.keep_state or leave_state) and row.end is None and row.error is None:
                pending = self._feed[i][self._feed[i] != END]
                row.end = self._state(i, self.decoder.take([i]), pending)
            row.reason = reason
        kept = [i for i in range(len(self.rows)) if i not in ended]
        if not kept:
            self.rows = []
            return
        self.decoder = self.decoder.take(kept)
        places = {old: new for new, old in enumerate(kept)}
        self._groups = [group for group in self._groups if group.keep(places)]
        self.rows = [self.rows[i] for i in kept]
        self._feed = self._feed[kept]
        self._plan()

    def _state(self, i: int, decoder: DecoderRows, pending: Ids, more: int = 0) -> GenerationState:
        """The state of a row, after `more` tokens than its history has."""
        group = next(group for group in self._groups if i in group.rows)
        history = group.history.rows(np.flatnonzero(group.rows == i).tolist())
        history.arrays["lengths"] += more
        return state_of(self.rows[i], history, decoder, pending)


def state_of(
    row: Row, history: SequenceHistory, decoder: DecoderRows, pending: Ids
) -> GenerationState:
    """The state of a row, with a history and a decoder of that row alone."""
    return GenerationState(
        decoder=decoder.read_state(),
        history=history.save_row(0),
        pending=tuple(pending.tolist()),
        seed=row.request.seed,
        index=row.index,
    )
