"""Texts that are made together, a step at a time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from textgen.contracts.decoders import DecoderFactory, Decoders
from textgen.generation.steps.sampled_texts import SampledTexts
from textgen.generation.steps.strategy_text import StrategyText
from textgen.generation.texts.row import Row
from textgen.protocols import Array


class Batch:
    """Rows whose prompts are fed, in the decoder of a model. Each part of them says what it is to
    be fed, and all is fed together.
    """

    def __init__(self, factory: DecoderFactory, decoder: Any, rows: Sequence[Row]) -> None:
        self.is_sampled = rows[0].is_sampled
        self._decoders = decoders = Decoders({factory: (decoder, len(rows))})
        self._parts: list[SampledTexts | StrategyText] = []
        if not self.is_sampled:
            self._parts += [StrategyText(decoders, factory, *each) for each in enumerate(rows)]
            return
        by_chain = defaultdict[object, list[int]](list)
        for index, row in enumerate(rows):
            by_chain[row.request.chain].append(index)
        for indices in by_chain.values():
            texts = [rows[index] for index in indices]
            self._parts.append(SampledTexts(decoders, factory, np.array(indices), texts))

    @property
    def rows(self) -> list[Row]:
        """The rows that have not ended."""
        return [row for part in self._parts for row in part.rows]

    def begin(self, logits: Array) -> None:
        """Begin after the prompts, with their logits (B, V)."""
        for part in self._parts:
            part.begin(logits)

    def advance(self, until: float) -> None:
        """Take steps until a row ends or time.perf_counter() reaches `until`, at least one."""
        self._parts = [part for part in self._parts if part.rows]
        ended = [part.end_overdue() for part in self._parts]
        while self._parts and not any(ended):
            ended = self._step(until)
            if time.perf_counter() >= until:
                return

    def flush(self) -> None:
        """Hand the tokens made so far to the rows. Those whose readers are far behind pause."""
        for part in self._parts:
            part.flush()
        for row in self.pause({row for row in self.rows if row.is_far_behind}):
            row.waits_for_reader = True

    def join(self, other: Batch) -> None:
        """Take the rows of another batch in."""
        first_rows = self._decoders.join(other._decoders)
        for part in other._parts:
            part.move(self._decoders, first_rows)
            if not any(mine.absorb(part) for mine in self._parts):
                self._parts.append(part)

    def pause(self, rows: Collection[Row]) -> list[Row]:
        """Save those of the rows that are here, and take them out. Each goes on from its state once
        it is submitted again.
        """
        return [row for part in self._parts for row in part.pause(rows)]

    def _step(self, until: float) -> list[bool]:
        """Take a step, or several where that is faster. Whether a row of each part ends."""
        if len(self._parts) == 1 and (ended := self._parts[0].steps(until)) is not None:
            return [ended]
        self._decoders.feed(feed for part in self._parts for feed in part.feeds())
        return [part.step() for part in self._parts]
