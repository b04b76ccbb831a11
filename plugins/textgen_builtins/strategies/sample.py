"""Sampling as a strategy: the definition of what the engine does by itself."""

from __future__ import annotations

from textgen import BuildContext
from textgen.protocols import Lanes, Moves
from textgen_builtins.strategies.config import SampleConfig


class Sample:
    """Feeds the one lane the token that is drawn."""

    lanes = 1
    draws_only = True

    def step(self, lanes: Lanes) -> Moves:
        """One token, which is final."""
        return Moves([0], [lanes.draw()], final=len(lanes.tokens[0]) + 1)


def build(config: SampleConfig, context: BuildContext) -> Sample:
    """The strategy."""
    return Sample()
