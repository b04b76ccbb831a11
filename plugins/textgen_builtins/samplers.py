"""Samplers: links of the chain that logits pass on their way to the draw."""

from __future__ import annotations

import attrs
from attrs.validators import ge

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Array, History, Sampler


@attrs.frozen
class GreedyConfig:
    """Always the most likely token; the first of equals."""


@attrs.frozen
class TemperatureConfig:
    """Sharper below 1, flatter above: probabilities to the power of 1 / temperature. 0 is greedy."""

    temperature: float = option(1.0, help="what logits are divided by", validator=ge(0))


@attrs.frozen
class Greedy:
    """Keeps the most likely token of each row, and forbids the others."""

    uses_history = False
    deterministic = True

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with one finite value a row."""
        from array_api_compat import array_namespace, device

        xp = array_namespace(logits)
        best = xp.argmax(logits, axis=-1, keepdims=True)
        tokens = xp.arange(logits.shape[-1], device=device(logits))
        never = xp.asarray(-float("inf"), dtype=logits.dtype, device=device(logits))
        return xp.where(tokens[None, :] == best, logits, never)


@attrs.frozen
class Temperature:
    """Divides logits by a temperature above 0."""

    temperature: float
    uses_history = False

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) divided."""
        return logits / self.temperature


def build_greedy(config: GreedyConfig, context: BuildContext) -> Sampler:
    """A Greedy."""
    return Greedy()


def build_temperature(config: TemperatureConfig, context: BuildContext) -> Sampler:
    """A Temperature, or a Greedy at 0."""
    return Temperature(config.temperature) if config.temperature else Greedy()


@hookimpl
def textgen_samplers() -> list[Component]:
    """Offer `greedy` and `temperature`."""
    return [
        Component("greedy", GreedyConfig, build_greedy),
        Component("temperature", TemperatureConfig, build_temperature),
    ]
