"""A text that fits between what comes before and after it."""

from __future__ import annotations

import numpy as np

from textgen import BuildContext, UsageError
from textgen.protocols import Ids, Lanes, Moves, Ranking
from textgen.tokenizers import unknown_id
from textgen_builtins.strategies.config import FillConfig


class Fill:
    """Samples candidates, then feeds the suffix to a copy of each, and ranks by its probability."""

    def __init__(self, candidates: int, suffix: Ids) -> None:
        self.lanes, self._count, self._suffix = 2 * candidates, candidates, suffix

    def step(self, lanes: Lanes) -> Moves | Ranking:
        """A token for each candidate; when all have ended, the suffix; then the ranking."""
        count, rows = self._count, range(self._count)
        if len(lanes) > count:
            return self._ranking(lanes)
        if len(lanes) < count:  # each draws with random numbers of its own from here on
            return Moves([0] * count, [()] * count)
        if lanes.ended.all():
            return Moves([*rows, *rows], [*[()] * count, *[self._suffix] * count])
        drawn = zip(lanes.ended, lanes.draw(), strict=True)
        return Moves(rows, [() if ended else (token,) for ended, token in drawn])

    def _ranking(self, lanes: Lanes) -> Ranking:
        before, (first, *rest) = lanes.logprobs(), self._suffix
        scores = np.array(
            [
                before[i, first] + lanes.fed(self._count + i)[range(len(rest)), rest].sum()
                for i in range(self._count)
            ]
        )
        order = np.argsort(-scores, kind="stable")
        return Ranking(order.tolist(), scores[order].tolist())


def build(config: FillConfig, context: BuildContext) -> Fill:
    """The strategy, with its suffix encoded."""
    assert context.tokenizer is not None
    ids = context.tokenizer.encode(config.suffix)
    known = ids[ids != unknown_id(context.tokenizer)]  # the others never come
    if not len(known):
        raise UsageError(f"the vocabulary lacks all of {config.suffix!r}", argument="suffix")
    return Fill(config.candidates, known)
