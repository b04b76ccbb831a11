"""Offers components under names that others use too."""

import attrs

from textgen import Component, hookimpl


@attrs.frozen
class LeastConfig:
    """Turns the preference round: what is least likely becomes certain."""


@attrs.frozen
class SilentConfig:
    """A tokenizer that is never built."""


def least(logits, history):
    """(B, V)."""
    return logits * -1000.0


@hookimpl
def textgen_samplers():
    """Offer `greedy`, which the built-in set has, and `loud`, which textgen-shout has."""
    return [
        Component(name, LeastConfig, lambda config, context: least) for name in ("greedy", "loud")
    ]


@hookimpl
def textgen_tokenizers():
    """Offer `shout`, which textgen-shout has."""
    return [Component("shout", SilentConfig, lambda config, context: None)]
