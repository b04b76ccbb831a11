"""The samplers themselves: small callables around textgen_builtins.samplers.logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np

from textgen import BuildContext
from textgen.errors import Fault, PipelineError
from textgen.protocols import Array, History, Sampler
from textgen_builtins.samplers import config as configs
from textgen_builtins.samplers import logits as ops

_MOST = 1e30  # as good as any larger bias or penalty, and float32 can hold it and what it is multiplied by
_MOST_REPETITION = 1e6  # of a factor, even after such a bias


@attrs.frozen
class Plain:
    """A sampler that sees the logits alone."""

    change: Callable[[Array], Array]
    deterministic: bool = False
    history = "none"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) changed."""
        return self.change(logits)


@attrs.frozen
class Counting:
    """A sampler that sees how often each token occurred."""

    change: Callable[[Array, History], Array]
    history = "counts"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) changed."""
        return self.change(logits, history)


@attrs.frozen
class NoRepeatNgram:
    """Forbids what would repeat a sequence of n tokens, for as long as something else is left.

    Keeps every token of the text, so memory grows with it.
    """

    n: int
    history = "tokens"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with tokens forbidden."""
        forbidden = np.zeros(tuple(logits.shape), bool)
        for row in range(len(forbidden)):
            tokens = history.tokens(row)
            if len(tokens) >= self.n:
                grams = np.lib.stride_tricks.sliding_window_view(tokens, self.n)
                tail = tokens[len(tokens) - self.n + 1 :]
                forbidden[row, grams[(grams[:, :-1] == tail).all(axis=1), -1]] = True
        return ops.forbid_unless_all(logits, forbidden)


@attrs.frozen
class Chained:
    """Samplers that count as links of their own."""

    links: tuple[Sampler, ...]

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) after all of them."""
        for link in self.links:
            logits = link(logits, history)
        return logits


def greedy(config: configs.GreedyConfig, context: BuildContext) -> Sampler:
    """Keep the best."""
    return Plain(ops.greedy, deterministic=True)


def temperature(config: configs.TemperatureConfig, context: BuildContext) -> Sampler:
    """Divide; at 0 keep the best."""
    return _temperature(config.temperature)


def top_k(config: configs.TopKConfig, context: BuildContext) -> Sampler:
    """Keep k."""
    return Plain(lambda logits: ops.top_k(logits, config.k))


def top_p(config: configs.TopPConfig, context: BuildContext) -> Sampler:
    """Keep the nucleus."""
    return Plain(lambda logits: ops.top_p(logits, config.p))


def min_p(config: configs.MinPConfig, context: BuildContext) -> Sampler:
    """Keep what is likely enough."""
    return Plain(lambda logits: ops.min_p(logits, config.p))


def typical(config: configs.TypicalConfig, context: BuildContext) -> Sampler:
    """Keep what is typical."""
    return Plain(lambda logits: ops.typical(logits, config.p))


def repetition_penalty(config: configs.RepetitionPenaltyConfig, context: BuildContext) -> Sampler:
    """Counts prompt and text."""
    penalty = min(max(config.penalty, 1 / _MOST_REPETITION), _MOST_REPETITION)
    return Counting(lambda x, h: ops.repetition(x, (h.counts + h.prompt_counts) > 0, penalty))


def presence_penalty(config: configs.PresencePenaltyConfig, context: BuildContext) -> Sampler:
    """Counts the text."""
    penalty = _bounded(config.penalty)
    return Counting(lambda x, h: ops.presence(x, h.counts > 0, penalty))


def frequency_penalty(config: configs.FrequencyPenaltyConfig, context: BuildContext) -> Sampler:
    """Counts the text."""
    penalty = _bounded(config.penalty)
    return Counting(lambda x, h: ops.frequency(x, h.counts, penalty))


def logit_bias(config: configs.LogitBiasConfig, context: BuildContext) -> Sampler:
    """Raises PipelineError for a text that is not one token."""
    return _logit_bias(config.bias, context, "bias")


def no_repeat_ngram(config: configs.NoRepeatNgramConfig, context: BuildContext) -> Sampler:
    """Keeps the whole text."""
    return NoRepeatNgram(config.n)


def standard(config: configs.StandardConfig, context: BuildContext) -> Sampler:
    """Only the links that do something."""
    links: list[Sampler] = []
    if config.repetition_penalty != 1:
        links.append(repetition_penalty(configs.RepetitionPenaltyConfig(config.repetition_penalty), context))
    if config.presence_penalty:
        links.append(presence_penalty(configs.PresencePenaltyConfig(config.presence_penalty), context))
    if config.frequency_penalty:
        links.append(frequency_penalty(configs.FrequencyPenaltyConfig(config.frequency_penalty), context))
    if config.logit_bias:
        links.append(_logit_bias(config.logit_bias, context, "logit_bias"))
    if config.no_repeat_ngram:
        links.append(NoRepeatNgram(config.no_repeat_ngram))
    if config.top_k:
        links.append(top_k(configs.TopKConfig(config.top_k), context))
    if config.typical_p < 1:
        links.append(typical(configs.TypicalConfig(config.typical_p), context))
    if config.top_p < 1:
        links.append(top_p(configs.TopPConfig(config.top_p), context))
    if config.min_p:
        links.append(min_p(configs.MinPConfig(config.min_p), context))
    if config.temperature != 1:
        links.append(_temperature(config.temperature))
    return Chained(tuple(links))


def _temperature(value: float) -> Sampler:
    return Plain(lambda logits: ops.temperature(logits, value)) if value else Plain(ops.greedy, deterministic=True)


def _bounded(value: float) -> float:
    return min(max(value, -_MOST), _MOST)


def _logit_bias(table: Mapping[str, float], context: BuildContext, key: str) -> Sampler:
    assert context.tokenizer is not None
    bias = np.zeros((1, context.vocab_size), np.float32)
    faults = []
    for text, value in table.items():
        ids = context.tokenizer.encode(text) if isinstance(text, str) else ()  # from Python, keys may be anything
        if len(ids) == 1 and ids[0] != context.tokenizer.unknown_id:
            bias[0, ids[0]] = _bounded(value)
        else:
            faults.append(Fault(key, "expected the text of one token of the vocabulary", repr(text)))
    if faults:
        raise PipelineError(faults, "sampler")

    def change(logits: Any) -> Any:
        return logits + ops.like(bias, logits)

    return Plain(change)
