"""Texts that are sampled: a token at each step, drawn for all those of a chain together."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from textgen.contracts import checks
from textgen.contracts.checks import FAILURES
from textgen.contracts.decoders import DecoderFactory, Decoders, Feed
from textgen.generation.chain import END
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import FinishReason, TokenLogprobs
from textgen.generation.row import ENDLESS, Row, start_history
from textgen.generation.sampling import log_softmax, to_numpy
from textgen.protocols import Array, Ids

_MIN_GREEDY_STEPS: Final = 4  # greedy steps in one call of the decoder, more with each call
_MAX_GREEDY_STEPS: Final = 256
_SECONDS: Final = 0.005  # a call that takes longer is not followed by a longer one


class SampledTexts:
    """The strategy that feeds each text the token that is drawn, for B texts with one chain.

    places  (B,) their rows of the decoder
    """

    def __init__(self, factory: DecoderFactory, rows: Sequence[Row], places: Ids) -> None:
        self.rows, self.places = [*rows], places
        self._factory, self._chain = factory, rows[0].request.chain
        self._history = start_history(rows)
        self._pending = np.zeros((len(rows), 1), np.int64)  # tokens to be fed next
        self._feed = Feed(factory, places, self._pending)
        self._made: list[Ids] = []  # (B, n) tokens that the rows do not have yet
        self._greedy_steps = _MIN_GREEDY_STEPS
        self._plan()

    def begin(self, logits: Array, decoders: Decoders) -> bool:
        """Draw the tokens that follow the prompts, by their logits (B, V). Whether a text ends."""
        for row, own in zip(self.rows, logits, strict=True):
            row.open(own)
        return self._leave(self._draw(logits), decoders)

    def feeds(self) -> list[Feed]:
        """Feeds of the next step."""
        self._feed = Feed(self._factory, self.places, self._pending)
        return [self._feed]

    def step(self, decoders: Decoders) -> bool:
        """Draw the next tokens, once that is fed. Whether a text ends."""
        assert self._feed.rows is not None
        assert self._feed.logits is not None
        self.places = self._feed.rows
        return self._leave(self._draw(self._feed.logits[:, 0]), decoders)

    def steps(self, decoders: Decoders, until: float) -> bool | None:
        """Take a step, or several where that is faster, if the decoder has no other rows; those of
        one text until it ends or time.perf_counter() reaches `until`.

        Whether a text ends; None if no step was taken.
        """
        decoder = decoders.whole(self._factory, len(self.rows))
        if decoder is None:
            return None
        greedily = getattr(decoder, "continue_greedily", None)
        if self._is_greedy and callable(greedily) and (ids := self._run_ahead(greedily)).size:
            ended = self._note(ids)
        elif len(self.rows) == 1 and not (self._is_early or self._is_noting):
            ended = self._steps_alone(decoder, until)
        else:
            ended = self._draw(self._factory.extend(decoder, self._pending))
        return self._leave(ended, decoders)

    def end_overdue(self, decoders: Decoders) -> bool:
        """End the texts whose time is over or whose caller ends them. Whether there are any."""
        ended = {
            i: reason
            for i, row in enumerate(self.rows)
            if (reason := row.out_of_time()) or row.error is not None
        }
        return self._leave(ended, decoders)

    def flush(self) -> None:
        """Hand the tokens made so far to the rows."""
        if self._made:
            made = np.concatenate(self._made, axis=1)
            self._made = []
            for row, ids in zip(self.rows, made, strict=True):
                row.add(ids[:-1] if ids[-1] == END else ids)

    def absorb(self, other: Any) -> bool:
        """Take in other texts, if they have the same chain."""
        if not isinstance(other, SampledTexts) or other._chain is not self._chain:
            return False
        self.flush()
        other.flush()
        self._history.join(other._history)
        self.rows += other.rows
        self.places = np.concatenate([self.places, other.places])
        self._pending = np.concatenate([self._pending, other._pending])
        self._plan()
        return True

    def split(self, rows: Collection[Row]) -> list[SampledTexts]:
        """Take some texts out, each by itself."""
        self.flush()
        places = [i for i, row in enumerate(self.rows) if row in rows and row.error is None]
        taken = [copy.copy(self) for _ in places]
        for part, place in zip(taken, places, strict=True):
            part._keep([place])
        if taken:
            self._keep([i for i in range(len(self.rows)) if i not in places])
        return taken

    def settle(self, decoders: Decoders) -> None:
        """Leave in decoders the rows of the texts alone."""
        decoders.feed([Feed(self._factory, self.places, self._pending[:, :0])])
        self.places = np.arange(len(self.rows))

    def shift(self, places: Mapping[DecoderFactory, int]) -> None:
        """Note that the rows stand after so many others of their model."""
        self.places = self.places + places[self._factory]

    def _plan(self) -> None:
        """Find what the next steps have to look at, once for as long as no row comes or goes."""
        self._left = min((row.left for row in self.rows), default=ENDLESS)
        self._watched = [
            (i, row)
            for i, row in enumerate(self.rows)
            if row.may_end or row.request.logprobs is not None
        ]
        self._is_early = any(row.is_early for _, row in self._watched)
        self._is_noting = any(row.request.logprobs is not None for _, row in self._watched)
        self._is_greedy = self._chain.plainly_greedy and not self._watched

    def _draw(self, logits: Array) -> dict[int, FinishReason | None]:
        """Draw a token for each row of logits (B, V). The rows that end with it."""
        # What follows writes into the logits.
        model_logits = to_numpy(logits).copy() if self._is_noting else NO_IDS
        if self._is_early:
            self.flush()
        for i, row in self._watched:
            if row.ending and row.is_early:
                logits[i, list(row.ending)] = -np.inf
        tokens = self._pick(logits)
        self._pending[:, 0] = tokens
        stopped: dict[int, FinishReason | None] = {}
        for i, row in self._watched:  # before a reader can take the tokens
            if (token := int(tokens[i])) == END:
                continue
            if (most := row.request.logprobs) is not None:
                row.logprobs.append(TokenLogprobs.of(log_softmax(model_logits[i]), token, most))
            if (reason := row.ends_with(token)) is not None:
                stopped[i] = reason
        return self._note(tokens[:, None]) | stopped

    def _pick(self, logits: Array) -> Ids:
        """A token (B,) for each row of logits (B, V).

        An error at one row is its `error` alone; it gets END.
        """
        numbers = self._history.numbers()[:, 0]
        try:
            return self._chain.pick(logits, self._history, numbers)
        except FAILURES as error:
            if len(self.rows) == 1:
                self.rows[0].error = error
                return np.array([END])
        tokens = np.full(len(self.rows), END)
        for i in range(len(tokens)):
            part = copy.copy(self)
            part._keep([i])
            tokens[i] = part._pick(logits[i : i + 1])[0]
            self._history.put([i], part._history)
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

    def _steps_alone(self, decoder: Any, until: float) -> dict[int, FinishReason | None]:
        """Steps of one text, with as little as possible around each of them."""
        (row,), chain, history, feed = self.rows, self._chain, self._history, self._pending
        expected, reason, stopping = (1, chain.vocab_size), None, row.may_end
        numbers, is_plain = history.numbers()[0, : self._left], chain.is_plain
        lengths, tokens = history.arrays["lengths"], list[int]()
        length = lengths.item()
        for step in range(len(numbers)):
            try:
                logits = decoder.extend(feed)
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
            if token == END or (stopping and (reason := row.ends_with(token)) is not None):
                break
            if time.perf_counter() >= until:
                break
        ended = self._note(np.array([tokens]))
        return ended if reason is None else {0: reason}

    def _run_ahead(self, continue_greedily: Any) -> Ids:
        """The tokens (B, n) of steps that the decoder takes by itself
        (textgen.protocols.GreedyDecoder).

        More with each call, while one does not take long.
        """
        chain, begun = self._chain, time.perf_counter()
        asked = len(self.rows), min(self._greedy_steps, self._left)
        ids: Ids = continue_greedily(self._pending[:, 0].copy(), asked[1], chain.forbidden)
        checks.check_greedy(ids, asked, chain.vocab_size, chain.model)
        if time.perf_counter() - begun < _SECONDS:
            self._greedy_steps = min(2 * self._greedy_steps, _MAX_GREEDY_STEPS)
        self._is_greedy = bool(ids.size)
        if self._is_greedy:
            self._pending[:, 0] = ids[:, -1]
            self._history.arrays["lengths"] += ids.shape[1]
        return ids

    def _leave(self, ended: Mapping[int, FinishReason | None], decoders: Decoders) -> bool:
        """Take out the rows that end, and those that failed. Whether there are any."""
        if ended:
            self.flush()
            for i, reason in ended.items():
                row = self.rows[i]
                if row.error is not None:
                    continue
                if row.request.keep_state:
                    pending = self._pending[i][self._pending[i] != END]
                    state = decoders.state(self._factory, int(self.places[i]))
                    row.save(state, self._history.save_row(i), pending)
                row.reason = reason
            self._keep([i for i in range(len(self.rows)) if i not in ended])
        return bool(ended)

    def _keep(self, kept: list[int]) -> None:
        """Keep some of the rows."""
        self.rows, self.places = [self.rows[i] for i in kept], self.places[kept]
        self._pending, self._made = self._pending[kept], []
        self._history = self._history.rows(kept)
        self._plan()
