"""Texts that are sampled: a token at each step, drawn for all those of a chain together."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from textgen.contracts import checks
from textgen.contracts.checks import FAILURES
from textgen.contracts.decoders import DecoderFactory, Decoders, Feed
from textgen.errors import PluginWarning
from textgen.generation.sampling.chain import END, rows_of
from textgen.generation.sampling.draw import log_softmax, to_numpy
from textgen.generation.texts.prompts import NO_IDS
from textgen.generation.texts.results import FinishReason, TokenLogprobs
from textgen.generation.texts.row import ENDLESS, Row, failing, start_history
from textgen.protocols import Array, Ids


class SampledTexts:
    """B texts with one chain of samplers, in some rows of a decoder. Each is fed the token that was
    drawn for it.

    Tokens are kept here for a while, since to hand them to many rows at each step takes longer.
    What only a few requests need is found out when rows come or go, and not at each step.
    """

    def __init__(
        self, decoders: Decoders, factory: DecoderFactory, indices: Ids, rows: Sequence[Row]
    ) -> None:
        self.rows = [*rows]
        self._decoders, self._chain = decoders, rows[0].request.chain
        self._history = start_history(rows)
        self._feed = Feed(factory, indices, np.zeros((len(rows), 1), np.int64))  # of drawn tokens
        self._unsent: list[Ids] = []  # (B, n), tokens that the rows do not have yet
        self._look_at_rows()

    def begin(self, logits: Array) -> None:
        """Draw the tokens that follow the prompts, by the logits (N, V) of a whole batch."""
        own = rows_of(logits, self._feed.rows)
        for row, first in zip(self.rows, own, strict=True):
            row.open(first)
        self._end(self._draw(own))

    def feeds(self) -> list[Feed]:
        """Feeds of the next step."""
        return [self._feed]

    def step(self) -> bool:
        """Draw the next tokens, once that is fed. Whether a text ends."""
        return self._end(self._draw(self._feed.logits[:, 0]))

    def steps(self, until: float) -> bool | None:
        """Take a step, or several where that is faster, if the decoder has no other rows. Those of
        a single text go on until it ends or time.perf_counter() reaches `until`.

        Whether a text ends; None if no step was taken.
        """
        decoder = self._decoders.whole(self._feed.factory, len(self.rows))
        if decoder is None:
            return None
        if len(self.rows) == 1 and not (self._is_early or self._has_logprobs):
            return self._end(self._steps_alone(decoder, until))
        return self._end(self._draw(self._feed.factory.extend(decoder, self._feed.ids)))

    def end_overdue(self) -> bool:
        """End the texts whose time is over or whose caller ends them. Whether there are any."""
        ended = {
            i: reason
            for i, row in enumerate(self.rows)
            if (reason := row.out_of_time()) or row.error is not None
        }
        return self._end(ended)

    def flush(self) -> None:
        """Hand the tokens made so far to the rows."""
        if self._unsent:
            made = np.concatenate(self._unsent, axis=1)
            self._unsent = []
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
        self._feed.rows = np.concatenate([self._feed.rows, other._feed.rows])
        self._feed.ids = np.concatenate([self._feed.ids, other._feed.ids])
        self._look_at_rows()
        return True

    def pause(self, rows: Collection[Row]) -> list[Row]:
        """Save some of the texts, and take them out."""
        self.flush()
        indices = [i for i, row in enumerate(self.rows) if row in rows]
        paused = [self.rows[i] for i in indices]
        for i, row in zip(indices, paused, strict=True):
            with failing([row]):
                self._save(i)
                row.pause()
        self._drop_rows(indices)
        return paused

    def move(self, decoders: Decoders, first_rows: Mapping[DecoderFactory, int]) -> None:
        """Note that the rows are now in other decoders, after so many others of their model."""
        self._decoders = decoders
        self._feed.rows = self._feed.rows + first_rows[self._feed.factory]

    def _look_at_rows(self) -> None:
        """Find out what the next steps have to do. It holds until rows come or go."""
        self._left = min((row.left for row in self.rows), default=ENDLESS)
        self._watched = [
            (i, row)
            for i, row in enumerate(self.rows)
            if row.may_end or row.request.logprobs is not None
        ]
        self._is_early = any(row.is_early for _, row in self._watched)
        self._has_logprobs = any(row.request.logprobs is not None for _, row in self._watched)

    def _draw(self, logits: Array) -> dict[int, FinishReason | None]:
        """Draw a token for each row of logits (B, V). The rows that end with it, and why."""
        # The samplers write into the logits.
        model_logits = to_numpy(logits).copy() if self._has_logprobs else NO_IDS
        if self._is_early:
            self.flush()  # a row is early until it has so many tokens
            self._is_early = any(row.is_early for _, row in self._watched)
        for i, row in self._watched:
            if row.ending and row.is_early:
                logits[i, list(row.ending)] = -np.inf
        tokens = self._pick(logits)
        self._feed.ids[:, 0] = tokens
        stopped: dict[int, FinishReason | None] = {}
        for i, row in self._watched:  # before a reader can take the tokens
            if (token := int(tokens[i])) == END:
                continue
            if (most := row.request.logprobs) is not None:
                row.logprobs.append(TokenLogprobs.of(log_softmax(model_logits[i]), token, most))
            if (reason := row.ends_with(token)) is not None:
                stopped[i] = reason
        return self._record(tokens[:, None]) | stopped

    def _pick(self, logits: Array) -> Ids:
        """A token (B,) for each row of logits (B, V).

        An error at one row is its `error` alone; it gets END. Warns of one that no row has alone.
        """
        numbers = self._history.numbers()[:, 0]
        try:
            return self._chain.pick(logits, self._history, numbers)
        except FAILURES as error:
            cause = error
        if len(self.rows) == 1:
            self.rows[0].error = cause
            return np.array([END])
        tokens = np.full(len(self.rows), END)
        for i in range(len(tokens)):
            part = copy.copy(self)
            part._keep_rows([i])
            tokens[i] = part._pick(logits[i : i + 1])[0]
            self._history.put([i], part._history)
        if not any(row.error for row in self.rows):
            said = f"a sampler fails with several texts at once, which takes longer: {cause!r}"
            warnings.warn(said, PluginWarning, stacklevel=2)
        return tokens

    def _record(self, tokens: Ids) -> dict[int, FinishReason | None]:
        """Keep drawn tokens (B, n) for the rows. The rows that end with them, and why."""
        self._unsent.append(tokens)
        self._left -= tokens.shape[1]
        ended: dict[int, FinishReason | None] = {}
        if self._left <= 0:
            self.flush()
            ended |= {i: "length" for i, row in enumerate(self.rows) if row.left <= 0}
        return ended | dict.fromkeys(np.flatnonzero(tokens[:, -1] == END).tolist(), "end")

    def _steps_alone(self, decoder: Any, until: float) -> dict[int, FinishReason | None]:
        """Take steps of one text, with as little as possible around each of them. Why it ends, if
        it does.
        """
        (row,) = self.rows
        chain, history, feed = self._chain, self._history, self._feed.ids
        expected = (1, chain.vocab_size)
        reason, stopping = None, row.may_end
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
        ended = self._record(np.array([tokens]))
        return ended if reason is None else {0: reason}

    def _end(self, ended: Mapping[int, FinishReason | None]) -> bool:
        """Take out the rows that end, for a reason or with an error. Whether there are any."""
        if ended:
            self.flush()
            for i, reason in ended.items():
                row = self.rows[i]
                if row.error is None:
                    if row.request.keep_state:
                        self._save(i)
                    row.reason = reason
            self._drop_rows(ended)
        return bool(ended)

    def _save(self, i: int) -> None:
        """Note the state of a row."""
        feed = self._feed
        state = self._decoders.state(feed.factory, feed.rows[i])
        self.rows[i].save(state, self._history.save_row(i), feed.ids[i][feed.ids[i] != END])

    def _drop_rows(self, dropped: Collection[int]) -> None:
        """Keep all rows but some."""
        if dropped:
            self._keep_rows([i for i in range(len(self.rows)) if i not in dropped])

    def _keep_rows(self, kept: list[int]) -> None:
        """Keep some of the rows."""
        self.rows, self._unsent = [self.rows[i] for i in kept], []
        feed = self._feed
        self._feed = Feed(feed.factory, feed.rows[kept], feed.ids[kept])
        self._history = self._history.rows(kept)
        self._look_at_rows()
