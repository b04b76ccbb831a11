"""Samplers: links of the chain that logits pass on their way to the draw."""

from __future__ import annotations

from typing import Any

from textgen import BuildContext, Component, hookimpl
from textgen_builtins.samplers.config import (
    FrequencyPenaltyConfig,
    GreedyConfig,
    LogitBiasConfig,
    MinPConfig,
    NoRepeatNgramConfig,
    PresencePenaltyConfig,
    RepetitionPenaltyConfig,
    StandardConfig,
    TemperatureConfig,
    TopKConfig,
    TopPConfig,
    TypicalConfig,
)


def _builder(name: str) -> Any:
    """`build` of the component that the class `name` implements; what it imports waits until then."""

    def build(config: Any, context: BuildContext) -> Any:
        from textgen_builtins.samplers import links

        return getattr(links, name)(config, context)

    return build


@hookimpl
def textgen_samplers() -> list[Component]:
    """Offer the usual samplers, and `standard`, which combines them."""
    return [
        Component("greedy", GreedyConfig, _builder("greedy")),
        Component("temperature", TemperatureConfig, _builder("temperature")),
        Component("top-k", TopKConfig, _builder("top_k")),
        Component("top-p", TopPConfig, _builder("top_p")),
        Component("min-p", MinPConfig, _builder("min_p")),
        Component("typical", TypicalConfig, _builder("typical")),
        Component("repetition-penalty", RepetitionPenaltyConfig, _builder("repetition_penalty")),
        Component("presence-penalty", PresencePenaltyConfig, _builder("presence_penalty")),
        Component("frequency-penalty", FrequencyPenaltyConfig, _builder("frequency_penalty")),
        Component("logit-bias", LogitBiasConfig, _builder("logit_bias")),
        Component("no-repeat-ngram", NoRepeatNgramConfig, _builder("no_repeat_ngram")),
        Component("standard", StandardConfig, _builder("standard"), default=True),
    ]
