"""The options of the built-in samplers. A sampler whose value changes nothing is left out of the chain."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, gt, le

from textgen import NoOptions, option

_SHARE = and_(gt(0), le(1))


@attrs.frozen
class GreedyConfig(NoOptions):
    """Always the most likely token; of equals, the first."""


@attrs.frozen
class TemperatureConfig:
    """Probabilities to the power of 1 / temperature: below 1 sharper, above 1 flatter."""

    temperature: float = option(
        1.0, help="what logits are divided by; 0 is greedy", validator=ge(0), argument="temperature"
    )


@attrs.frozen
class TopKConfig:
    """Only the k most likely tokens."""

    k: int = option(40, help="keep the k most likely tokens; 0 is off", validator=ge(0), argument="top_k")


@attrs.frozen
class TopPConfig:
    """Only the most likely tokens that together reach a probability (nucleus sampling)."""

    p: float = option(
        0.9,
        help="keep the most likely tokens up to this probability; 1 is off",
        validator=_SHARE,
        argument="top_p",
    )


@attrs.frozen
class MinPConfig:
    """Only tokens whose probability is at least a share of the highest one."""

    p: float = option(
        0.05,
        help="keep tokens of at least this share of the highest probability; 0 is off",
        validator=and_(ge(0), le(1)),
        argument="min_p",
    )


@attrs.frozen
class TypicalConfig:
    """Only tokens whose surprise is close to the expected one (typical sampling)."""

    p: float = option(
        0.9, help="keep typical tokens up to this probability; 1 is off", validator=_SHARE, argument="typical_p"
    )


@attrs.frozen
class RepetitionPenaltyConfig:
    """Makes tokens that occurred in prompt or text less likely, by a factor on their logits."""

    penalty: float = option(
        1.1,
        help="factor by which tokens in prompt and text get less likely; 1 is off, below 1 encourages them",
        validator=gt(0),
        argument="repetition_penalty",
    )


@attrs.frozen
class PresencePenaltyConfig:
    """Makes tokens that were generated already less likely, regardless of how often."""

    penalty: float = option(
        0.5,
        help="subtracted once from the logits of generated tokens; 0 is off, below 0 encourages them",
        argument="presence_penalty",
    )


@attrs.frozen
class FrequencyPenaltyConfig:
    """Makes tokens less likely each time they are generated."""

    penalty: float = option(
        0.2,
        help="subtracted from a logit for each time its token was generated; 0 is off, below 0 encourages",
        argument="frequency_penalty",
    )


@attrs.frozen
class LogitBiasConfig:
    """Makes chosen tokens more or less likely."""

    bias: dict[str, float] = option(
        help="a table of tokens, each as its text, and what is added to their logits", argument="logit_bias"
    )


@attrs.frozen
class NoRepeatNgramConfig:
    """Never a token that completes a sequence of tokens that is already in prompt or text."""

    n: int = option(
        8,
        help="length in tokens of sequences that are never repeated; 0 is off",
        validator=ge(0),
        argument="no_repeat_ngram",
    )
