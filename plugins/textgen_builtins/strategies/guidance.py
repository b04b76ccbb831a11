"""Classifier-free guidance: two prompts, one text."""

from __future__ import annotations

import numpy as np

from textgen import BuildContext
from textgen.protocols import NEW_LANE, Ids, Lanes, Moves
from textgen.tokenizers import unknown_id
from textgen_builtins.strategies.config import GuidanceConfig


class Guidance:
    """Lane 0 continues the prompt, lane 1 the negative one; both are fed the same tokens."""

    lanes = 2

    def __init__(self, negative: Ids, scale: float) -> None:
        self._negative, self._scale = negative, scale

    def step(self, lanes: Lanes) -> Moves:
        """A token drawn by the logits of both lanes."""
        if len(lanes) == 1:
            return Moves([0, NEW_LANE], [(), self._negative])
        here, there = lanes.logprobs()
        with np.errstate(invalid="ignore"):  # a token that both forbid
            guided = there + self._scale * (here - there)
        guided[np.isneginf(here)] = -np.inf
        token = lanes.draw(np.stack([guided, guided]))[0]
        return Moves([0, 1], [[token], [token]], final=len(lanes.tokens[0]) + 1)


def build(config: GuidanceConfig, context: BuildContext) -> Guidance:
    """The strategy, with its prompt encoded."""
    assert context.tokenizer is not None
    ids = context.tokenizer.encode(config.negative_prompt)
    return Guidance(ids[ids != unknown_id(context.tokenizer)], config.scale)
