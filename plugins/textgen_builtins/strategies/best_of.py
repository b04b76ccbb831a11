"""The best of several sampled texts."""

from __future__ import annotations

import numpy as np

from textgen import BuildContext
from textgen.protocols import Lanes, Moves, Ranking, Tensors
from textgen_builtins.strategies.config import BestOfConfig


class BestOf:
    """Samples `lanes` texts side by side, and ranks them by mean log-probability.

    State: `total` (L,), the sum of the log-probabilities of a lane's tokens by the model.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def start(self) -> Tensors:
        """Nothing drawn yet."""
        return {"total": np.zeros(())}

    def step(self, lanes: Lanes) -> Moves | Ranking:
        """A token for each text that has not ended."""
        if len(lanes) < self.lanes:  # each draws with random numbers of its own from here on
            parents = [0] * self.lanes
            return Moves(parents, [()] * self.lanes, {"total": lanes.state["total"][parents]})
        total, ended = lanes.state["total"], lanes.ended
        if ended.all():
            means = total / [max(1, len(ids)) for ids in lanes.tokens]
            order = np.argsort(-means, kind="stable")
            return Ranking(order.tolist(), means[order].tolist())
        tokens, logprobs = lanes.draw(), lanes.logprobs()
        drawn = np.where(tokens < 0, 0.0, logprobs[range(len(lanes)), tokens])
        fed = [() if done else (token,) for done, token in zip(ended, tokens, strict=True)]
        return Moves(range(len(lanes)), fed, {"total": total + np.where(ended, 0.0, drawn)})


def build(config: BestOfConfig, context: BuildContext) -> BestOf:
    """The strategy."""
    return BestOf(config.n)
