"""What the built-in samplers take. A value that changes nothing leaves the sampler out of the chain."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, gt, le

from textgen import NoOptions, option

_SHARE = and_(gt(0), le(1))


@attrs.frozen
class GreedyConfig(NoOptions):
    """Always the most likely token; the first of equals."""


@attrs.frozen
class TemperatureConfig:
    """Sharper below 1, flatter above: probabilities to the power of 1 / temperature."""

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
    """Only tokens not too much less likely than the most likely one."""

    p: float = option(
        0.05,
        help="keep tokens of at least this share of the highest probability; 0 is off",
        validator=and_(ge(0), le(1)),
        argument="min_p",
    )


@attrs.frozen
class TypicalConfig:
    """Only tokens about as surprising as the model expects to be surprised."""

    p: float = option(
        0.9, help="keep typical tokens up to this probability; 1 is off", validator=_SHARE, argument="typical_p"
    )


@attrs.frozen
class RepetitionPenaltyConfig:
    """Makes tokens of the prompt and the text so far less likely, by a factor on their logits."""

    penalty: float = option(
        1.1,
        help="make tokens that occurred less likely by this factor, prompt included; 1 is off, below encourages",
        validator=gt(0),
        argument="repetition_penalty",
    )


@attrs.frozen
class PresencePenaltyConfig:
    """Makes tokens that were generated already less likely, however often."""

    penalty: float = option(
        0.5,
        help="taken once from the logits of generated tokens; 0 is off, below encourages",
        argument="presence_penalty",
    )


@attrs.frozen
class FrequencyPenaltyConfig:
    """Makes tokens less likely the more often they were generated."""

    penalty: float = option(
        0.2,
        help="taken from a logit for each time its token was generated; 0 is off, below encourages",
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
    """Never the token that would complete a sequence of tokens which prompt or text hold already."""

    n: int = option(
        8,
        help="length in tokens of the sequences never to repeat; 0 is off",
        validator=ge(0),
        argument="no_repeat_ngram",
    )
