"""Rows that generate together: one decoder, a step at a time for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import numpy as np

from textgen.contracts import checks
from textgen.contracts.checks import FAILURES
from textgen.generation.chain import END, Chain, rows_of
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import (
    FinishReason,
    GenerationState,
    TokenLogprobs,
    reading_state,
)
from textgen.generation.row import ENDLESS, Row
from textgen.generation.sampling import SequenceHistory, log_softmax, to_numpy
from textgen.protocols import Array, Ids

_SHORTEST: Final = 4  # greedy steps in one call of the decoder, more with each call
_LONGEST: Final = 256
_SECONDS: Final = 0.005  # a call that takes longer is not followed by a longer one
# Tokens, and log-probabilities of likeliest ones, by which a reader may be behind before its text
# pauses.
_UNREAD: Final = 1 << 12

Begin: TypeAlias = Callable[[int], Any]
"""Makes a decoder of the model for a number of rows, at the start state."""


def offers_rows(decoder: Any) -> bool:
    """Whether a decoder is a RowDecoder."""
    return callable(getattr(decoder, "take", None)) and callable(getattr(decoder, "join", None))


def can_share(begin: Begin) -> bool:
    """Whether rows of the model can share a batch, one that was fed nothing among them."""
    return offers_rows(begin(1)) or keeps_shape(begin, first=0)


def keeps_shape(begin: Begin, *, first: int = 1) -> bool:
    """Whether the state of a row has the same arrays after `first` tokens and after each more.

    Before the first token a decoder may have no state yet.
    """
    decoder, forms = begin(1), []
    for count in (first, *[1] * (2 - first)):
        decoder.extend(np.zeros((1, count), np.int64))
        state = decoder.read_state().items()
        forms.append({name: (array.shape, array.dtype) for name, array in state})
    return all(form == forms[0] for form in forms)


def take_rows(begin: Begin, decoder: Any, rows: Sequence[int]) -> Any:
    """Another decoder with some rows of one, in this order; a row may be taken twice.

    The decoder takes them itself if it is a RowDecoder; otherwise they are taken from its state.
    """
    if offers_rows(decoder):
        return decoder.take(rows)
    state, other = decoder.read_state(), begin(len(rows))
    other.write_state({name: array[rows] for name, array in state.items()})
    return other


def join_rows(decoder: Any, other: Any) -> None:
    """Append the rows of another decoder of the same model, which is not used afterwards."""
    if offers_rows(decoder):
        decoder.join(other)
    else:
        ours, theirs = decoder.read_state(), other.read_state()
        decoder.write_state({name: np.concatenate([ours[name], theirs[name]]) for name in theirs})


@attrs.define(eq=False)
class Group:
    """The rows of a batch that share a chain: their places in it, ascending, and their history in
    that order.
    """

    chain: Chain
    history: SequenceHistory
    rows: Ids

    def pick(self, logits: Array, rows: Sequence[Row]) -> Ids:
        """A token (B,) for each row of logits (B, V).

        An error at one row is its `error` alone; it gets END.
        """
        numbers = self.history.numbers()[:, 0]
        try:
            return self.chain.pick(logits, self.history, numbers)
        except FAILURES as error:
            if len(self.rows) == 1:
                rows[int(self.rows[0])].error = error
                return np.array([END])
        tokens = np.full(len(self.rows), END)
        for i, place in enumerate(self.rows.tolist()):
            one, history = slice(i, i + 1), self.history.rows([i])
            try:
                tokens[one] = self.chain.pick(logits[one], history, numbers[one])
                self.history.put([i], history)
            except FAILURES as error:
                rows[place].error = error
        return tokens

    def keep(self, places: Mapping[int, int]) -> bool:
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

    def __init__(self, begin: Begin, decoder: Any, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self._begin, self._decoder = begin, decoder
        places: dict[Chain, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.request.chain, []).append(place)
        self._groups = [
            Group(chain, begun(chain, [rows[i] for i in mine]), np.array(mine))
            for chain, mine in places.items()
        ]
        self._feed = np.zeros((len(rows), 1), np.int64)
        self._made: list[Ids] = []  # (B, n) tokens that the rows do not have yet
        self._chunk = _SHORTEST
        self._plan()

    def advance(self, until: float) -> None:
        """Take steps until a row ends or time.perf_counter() reaches `until`, at least one."""
        ended = {
            i: reason
            for i, row in enumerate(self.rows)
            if (reason := row.out_of_time()) or row.error is not None
        }
        while not ended:
            if self._is_greedy and (ids := self._greedy_steps()).size:
                ended = self._note(ids)
            elif self._is_alone:
                ended = self._steps_alone(until)
            else:
                ended = self._draw(self._decoder.extend(self._feed))
            if time.perf_counter() >= until:
                break
        self._leave(ended)

    def draw(self, logits: Array) -> None:
        """Draw the tokens that follow the prompts."""
        for i, row in enumerate(self.rows):
            row.open(logits[i])
        self._leave(self._draw(logits))

    def flush(self) -> None:
        """Hand the tokens made so far to the rows."""
        if self._made:
            made = np.concatenate(self._made, axis=1)
            self._made = []
            for row, ids in zip(self.rows, made, strict=True):
                row.add(ids[:-1] if ids[-1] == END else ids)

    def join(self, other: Batch) -> None:
        """Take the rows of another batch in."""
        self.flush()
        other.flush()
        join_rows(self._decoder, other._decoder)
        for group in other._groups:
            group.rows = group.rows + len(self.rows)
            mine = next((mine for mine in self._groups if mine.chain is group.chain), None)
            if mine is None:
                self._groups.append(group)
            else:
                mine.history.join(group.history)
                mine.rows = np.concatenate([mine.rows, group.rows])
        self.rows += other.rows
        self._feed = np.concatenate([self._feed, other._feed])
        self._plan()

    def pause_unread(self) -> None:
        """Take out the rows whose readers are far behind."""
        unread = [
            row
            for row in self.rows
            if (row.made - row.taken) * (1 + (row.request.logprobs or 0)) > _UNREAD
            and not row.whole
        ]
        for row in self.take_out(unread):
            row.paused = True

    def take_out(self, rows: Collection[Row]) -> list[Row]:
        """Take out those of the rows that are here. Submitted again, they go on from their
        `start`.
        """
        places = [i for i, row in enumerate(self.rows) if row in rows and row.error is None]
        taken = [self.rows[i] for i in places]
        self._leave(dict.fromkeys(places))
        for row in taken:
            row.start, row.ids, row.end = row.end, NO_IDS, None
        return taken

    def _plan(self) -> None:
        """Find what the next steps have to look at, once for as long as no row comes or goes."""
        rows = [*enumerate(self.rows)]
        self._left = min((row.left for row in self.rows), default=ENDLESS)
        self._stopping = [(i, row) for i, row in rows if row.may_stop]
        self._early = [(i, row) for i, row in self._stopping if row.is_early]
        self._noting = [(i, row) for i, row in rows if row.request.logprobs is not None]
        self._is_alone = len(rows) == 1 and not (self._early or self._noting)
        self._is_greedy = (
            not (self._stopping or self._noting)
            and callable(getattr(self._decoder, "continue_greedily", None))
            and all(group.chain.plainly_greedy for group in self._groups)
        )

    def _draw(self, logits: Array) -> dict[int, FinishReason | None]:
        """Draw a token for each row of logits (B, V). The rows that end with it."""
        chain = self.rows[0].request.chain
        checks.check_logits(logits, (len(self.rows), chain.vocab_size), chain.model)
        # What follows writes into the logits.
        model_logits = to_numpy(logits).copy() if self._noting else NO_IDS
        if self._early:
            self.flush()
        for i, row in self._early:
            if row.ending and row.is_early:
                logits[i, list(row.ending)] = -np.inf
        tokens = self._pick(logits)
        self._feed[:, 0] = tokens
        for i, row in self._noting:  # before a reader can take the tokens
            if tokens[i] != END:
                assert row.request.logprobs is not None
                given = log_softmax(model_logits[i])
                noted = TokenLogprobs.of(given, int(tokens[i]), row.request.logprobs)
                row.logprobs.append(noted)
        ended = self._note(tokens[:, None])
        for i, row in self._stopping:
            if tokens[i] != END and (reason := row.ends_with(int(tokens[i]))) is not None:
                ended[i] = reason
        return ended

    def _pick(self, logits: Array) -> Ids:
        """The tokens (B,), drawn group by group."""
        if len(self._groups) == 1:
            return self._groups[0].pick(logits, self.rows)
        tokens = np.empty(len(self.rows), np.int64)
        for group in self._groups:
            tokens[group.rows] = group.pick(rows_of(logits, group.rows), self.rows)
        return tokens

    def _note(self, tokens: Ids) -> dict[int, FinishReason | None]:
        """Keep tokens (B, n): to hand them to many rows takes longer.

        The rows that end with them.
        """
        self._made.append(tokens)
        self._left -= tokens.shape[1]
        ended: dict[int, FinishReason | None] = {}
        if self._left <= 0:
            self.flush()
            ended |= {i: "length" for i, row in enumerate(self.rows) if row.left <= 0}
        last = tokens[:, -1]
        if last.min() == END:
            ended |= dict.fromkeys(np.flatnonzero(last == END).tolist(), "end")
        return ended

    def _steps_alone(self, until: float) -> dict[int, FinishReason | None]:
        """Steps of a batch of one, with as little as possible around each of them."""
        (row,), (group,), feed, tokens = self.rows, self._groups, self._feed, list[int]()
        chain, history, extend = group.chain, group.history, self._decoder.extend
        expected, reason, stopping = (1, chain.vocab_size), None, bool(self._stopping)
        numbers, is_plain = history.numbers()[0, : self._left], chain.is_plain
        lengths = history.arrays["lengths"]
        length = lengths.item()
        for step in range(len(numbers)):
            try:
                logits = extend(feed)
                if not step or logits.shape != expected:
                    checks.check_logits(logits, expected, chain.model)
                if is_plain:
                    token = chain.pick_one(logits, history, numbers.item(step))
                    lengths[0] = length + step + 1
                else:
                    token = int(chain.pick(logits, history, numbers[step : step + 1])[0])
            except FAILURES as error:
                row.error, token = error, END
            feed[0, 0] = token
            tokens.append(token)
            if token == END:
                break
            if stopping and (reason := row.ends_with(token)) is not None:
                break
            if time.perf_counter() >= until:
                break
        ended = self._note(np.array([tokens]))
        return ended if reason is None else {0: reason}

    def _greedy_steps(self) -> Ids:
        """The tokens (B, n) of steps that the decoder takes by itself
        (textgen.protocols.GreedyDecoder).

        More with each call, while one does not take long.
        """
        chain, begun_at = self.rows[0].request.chain, time.perf_counter()
        asked = len(self.rows), min(self._chunk, self._left)
        ids: Ids
        ids = self._decoder.continue_greedily(self._feed[:, 0].copy(), asked[1], chain.forbidden)
        checks.check_greedy(ids, asked, chain.vocab_size, chain.model)
        if time.perf_counter() - begun_at < _SECONDS:
            self._chunk = min(2 * self._chunk, _LONGEST)
        self._is_greedy = bool(ids.size)
        if self._is_greedy:
            self._feed[:, 0] = ids[:, -1]
            for group in self._groups:
                group.history.arrays["lengths"] += ids.shape[1]
        return ids

    def _leave(self, ended: Mapping[int, FinishReason | None]) -> None:
        """Take rows out. One without a reason that did not fail has its state as `end`."""
        if not ended:
            return
        self.flush()
        for i, reason in ended.items():
            row = self.rows[i]
            if row.error is None:
                if row.request.keep_state or reason is None:
                    row.end = self._state(i)
                row.reason = reason
        kept = [i for i in range(len(self.rows)) if i not in ended]
        self.rows = [self.rows[i] for i in kept]
        if kept:
            self._decoder = take_rows(self._begin, self._decoder, kept)
            places = {old: new for new, old in enumerate(kept)}
            self._groups = [group for group in self._groups if group.keep(places)]
            self._feed = self._feed[kept]
            self._plan()

    def _state(self, i: int) -> GenerationState:
        """The state of a row."""
        group = next(group for group in self._groups if i in group.rows)
        history = group.history.rows(np.flatnonzero(group.rows == i).tolist())
        pending = self._feed[i][self._feed[i] != END]
        return state_of(self.rows[i], history, take_rows(self._begin, self._decoder, [i]), pending)


def state_of(row: Row, history: SequenceHistory, decoder: Any, pending: Ids) -> GenerationState:
    """The state of a row, with a history and a decoder of that row alone."""
    return GenerationState(
        decoder=decoder.read_state(),
        history=history.save_row(0),
        pending=tuple(pending.tolist()),
        seed=row.request.seed,
        index=row.index,
    )
