"""The built-in samplers: small callables around textgen_builtins.samplers.logits."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, Final, cast

import attrs
import numpy as np

from textgen import BuildContext
from textgen.errors import Fault, PipelineError
from textgen.protocols import Array, History, Sampler, Tokenizer
from textgen.tokenizers import unknown_id
from textgen_builtins.samplers import config as configs
from textgen_builtins.samplers import logits as ops

_MAX_BIAS = 1e30  # has the effect of any larger bias or penalty, and its products fit into float32
_MOST_REPETITION = 1e6  # the same for a factor, even after such a bias


@attrs.frozen
class Plain:
    """A sampler that reads only the logits."""

    change: Callable[[Array], Array]
    deterministic: bool = False
    history = "none"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) changed."""
        return self.change(logits)


@attrs.frozen
class Penalties:
    """Penalties for tokens that occurred, in the order of their fields."""

    repetition: float
    presence: float
    frequency: float
    history = "counts"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) changed."""
        if self.repetition != 1:
            seen = (history.counts + history.prompt_counts) > 0
            logits = ops.repetition(logits, seen, self.repetition)
        if self.presence:
            logits = ops.presence(logits, history.counts > 0, self.presence)
        if self.frequency:
            logits = ops.frequency(logits, history.counts, self.frequency)
        return logits


@attrs.frozen
class Xtc:
    """Excludes the most likely tokens with a probability.

    Source: P. E. Weidmann, "Exclude Top Choices", 2024.
    """

    probability: float
    threshold: float
    history = "none"
    random = True

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with tokens forbidden in some of the rows."""
        return ops.xtc(logits, self.threshold, history.random()[:, 0] < self.probability)


@attrs.frozen
class Off:
    """Changes nothing, and adds no link to the chain."""

    links: tuple[Sampler, ...] = ()
    history = "none"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) unchanged."""
        return logits


OFF: Final = Off()


def greedy(config: configs.GreedyConfig, context: BuildContext) -> Sampler:
    """Keep the most likely token."""
    return Plain(ops.greedy, deterministic=True)


def temperature(config: configs.TemperatureConfig, context: BuildContext) -> Sampler:
    """Divide by the temperature; at 0, keep the most likely token."""
    value = config.temperature
    if not value:
        return Plain(ops.greedy, deterministic=True)
    return Plain(lambda logits: ops.temperature(logits, value)) if value != 1 else OFF


def top_k(config: configs.TopKConfig, context: BuildContext) -> Sampler:
    """Keep the k most likely tokens."""
    return Plain(lambda logits: ops.top_k(logits, config.k)) if config.k else OFF


def top_p(config: configs.TopPConfig, context: BuildContext) -> Sampler:
    """Keep the most likely tokens up to a probability."""
    return Plain(lambda logits: ops.top_p(logits, config.p)) if config.p < 1 else OFF


def min_p(config: configs.MinPConfig, context: BuildContext) -> Sampler:
    """Keep tokens that are likely enough."""
    return Plain(lambda logits: ops.min_p(logits, config.p)) if config.p else OFF


def penalties(config: configs.PenaltiesConfig, context: BuildContext) -> Sampler:
    """Reads counts of prompt and text."""
    repetition = min(max(config.repetition, 1 / _MOST_REPETITION), _MOST_REPETITION)
    made = Penalties(repetition, _bounded(config.presence), _bounded(config.frequency))
    return OFF if made == Penalties(1, 0, 0) else made


def xtc(config: configs.XtcConfig, context: BuildContext) -> Sampler:
    """Excludes the top choices."""
    return Xtc(config.probability, config.threshold) if config.probability else OFF


def logit_bias(config: configs.LogitBiasConfig, context: BuildContext) -> Sampler:
    """Tokens are given as text, or in Python also as ids.

    Raises PipelineError for what is not one token.
    """
    if not config.bias:
        return OFF
    assert context.tokenizer is not None
    bias = np.zeros((1, context.vocab_size), np.float32)
    for token, value in cast("dict[Any, float]", config.bias).items():
        if (index := _token(token, context.tokenizer)) is None:
            expected = "expected the text of one token of the vocabulary"
            if isinstance(token, int):
                expected = f"expected a token id from 0 to {context.vocab_size - 1}"
            raise PipelineError([Fault("bias", expected, reprlib.repr(token))], "sampler")
        bias[0, index] = _bounded(value)
    return Plain(lambda logits: logits + ops.like(bias, logits))


def _token(token: Any, tokenizer: Tokenizer) -> int | None:
    """The id of a token given as text or id; None if there is no such token."""
    if isinstance(token, int) and not isinstance(token, bool):
        return token if 0 <= token < tokenizer.vocab_size else None
    if not isinstance(token, str):  # in Python, keys may have any type
        return None
    ids = tokenizer.encode(token).tolist()
    return int(ids[0]) if len(ids) == 1 and ids[0] != unknown_id(tokenizer) else None


def _bounded(value: float) -> float:
    return min(max(value, -_MAX_BIAS), _MAX_BIAS)
