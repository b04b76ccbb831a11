"""Texts that are made together, a step at a time."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np

from textgen.contracts.decoders import DecoderFactory, Decoders
from textgen.generation.chain import Chain, rows_of
from textgen.generation.lanes import StrategyText
from textgen.generation.row import Row
from textgen.generation.sampled import SampledTexts
from textgen.protocols import Array

# Tokens, and log-probabilities of likeliest ones, by which a reader may be behind before its text
# pauses.
_UNREAD: Final = 1 << 12


class Batch:
    """Rows whose prompts are fed, in the decoder of a model. Each part of them says what it is to
    be fed, and all is fed together.
    """

    def __init__(self, factory: DecoderFactory, decoder: Any, rows: Sequence[Row]) -> None:
        self.is_sampled = rows[0].is_sampled
        self._decoders = Decoders({factory: (decoder, len(rows))})
        self._parts: list[SampledTexts | StrategyText] = []
        sampled = defaultdict[Chain, list[int]](list)
        for place, row in enumerate(rows):
            if self.is_sampled:
                sampled[row.request.chain].append(place)
            else:
                self._parts.append(StrategyText(factory, row, place))
        self._parts += [
            SampledTexts(factory, [rows[place] for place in places], np.array(places))
            for places in sampled.values()
        ]

    @property
    def rows(self) -> list[Row]:
        """The rows that have not ended."""
        return [row for part in self._parts for row in part.rows]

    def begin(self, logits: Array) -> None:
        """Begin after the prompts, with their logits (B, V)."""
        for part in self._parts:
            part.begin(rows_of(logits, part.places), self._decoders)

    def advance(self, until: float) -> None:
        """Take steps until a row ends or time.perf_counter() reaches `until`, at least one."""
        self._parts = [part for part in self._parts if part.rows]
        ended = [part.end_overdue(self._decoders) for part in self._parts]
        while not any(ended):
            ended = self._step(until)
            if time.perf_counter() >= until:
                return

    def flush(self) -> None:
        """Hand the tokens made so far to the rows."""
        for part in self._parts:
            part.flush()

    def join(self, other: Batch) -> None:
        """Take the rows of another batch in."""
        places = self._decoders.join(other._decoders)
        for part in other._parts:
            part.shift(places)
            if not any(mine.absorb(part) for mine in self._parts):
                self._parts.append(part)

    def pause_unread(self) -> None:
        """Take out the rows whose readers are far behind."""
        unread = {
            row
            for row in self.rows
            if (row.made - row.taken) * (1 + (row.request.logprobs or 0)) > _UNREAD
            and not row.whole
        }
        for row in self.take_out(unread):
            row.paused = True

    def take_out(self, rows: Collection[Row]) -> list[Row]:
        """Take out those of the rows that are here, each with a batch of its own in which it goes
        on once it is submitted again.
        """
        taken = [own for part in self._parts for own in part.split(rows)] if rows else []
        for part in taken:
            (row,), own = part.rows, copy.copy(part)
            row.parked = copy.copy(self)
            row.parked._parts = [own]
            row.parked._decoders = copy.copy(self._decoders)
            own.settle(row.parked._decoders)
        self._parts = [part for part in self._parts if part.rows and part not in taken]
        return [row for part in taken for row in part.rows]

    def _step(self, until: float) -> list[bool]:
        """Take a step, or several where that is faster. Whether a row of each part ends."""
        ended = None
        if len(self._parts) == 1 and isinstance(part := self._parts[0], SampledTexts):
            ended = part.steps(self._decoders, until)
        if ended is not None:
            return [ended]
        self._decoders.feed(feed for part in self._parts for feed in part.feeds())
        return [part.step(self._decoders) for part in self._parts]
