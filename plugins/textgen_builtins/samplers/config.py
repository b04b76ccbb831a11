"""The options of the built-in samplers."""

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

    temperature: float = option(1.0, help="what logits are divided by; 0 is greedy", validator=ge(0))


@attrs.frozen
class TopKConfig:
    """Only the k most likely tokens."""

    k: int = option(40, help="how many", validator=ge(1))


@attrs.frozen
class TopPConfig:
    """Only the most likely tokens that together reach a probability (nucleus sampling)."""

    p: float = option(0.9, help="the probability to reach", validator=_SHARE)


@attrs.frozen
class MinPConfig:
    """Only tokens not too much less likely than the most likely one."""

    p: float = option(0.05, help="at least this share of the highest probability", validator=_SHARE)


@attrs.frozen
class TypicalConfig:
    """Only tokens about as surprising as the model expects to be surprised."""

    p: float = option(0.9, help="the probability that they reach together", validator=_SHARE)


@attrs.frozen
class RepetitionPenaltyConfig:
    """Makes tokens of the prompt and the text so far less likely, by a factor on their logits."""

    penalty: float = option(1.1, help="the factor; above 1 discourages, below encourages", validator=gt(0))


@attrs.frozen
class PresencePenaltyConfig:
    """Makes tokens that were generated already less likely, however often."""

    penalty: float = option(0.5, help="what their logits lose; below 0 encourages")


@attrs.frozen
class FrequencyPenaltyConfig:
    """Makes tokens less likely the more often they were generated."""

    penalty: float = option(0.2, help="what a logit loses each time; below 0 encourages")


@attrs.frozen
class LogitBiasConfig:
    """Makes chosen tokens more or less likely."""

    bias: dict[str, float] = option(help="a table of tokens, as text, and what is added to their logits")


@attrs.frozen
class NoRepeatNgramConfig:
    """Never the token that would complete a sequence of tokens which prompt or text hold already."""

    n: int = option(8, help="length of the sequences in tokens", validator=ge(1))


@attrs.frozen(kw_only=True)
class StandardConfig:
    """The usual samplers in the usual order, each off unless asked for.

    Penalties, bias, no-repeat, then top-k, typical, top-p, min-p, and temperature.
    """

    repetition_penalty: float = option(
        1.0, help="make tokens that occurred less likely, prompt included; 1 is off", validator=gt(0)
    )
    presence_penalty: float = option(0.0, help="taken from the logits of generated tokens, once; 0 is off")
    frequency_penalty: float = option(0.0, help="taken from the logits for each time a token was generated; 0 is off")
    logit_bias: dict[str, float] = option(
        factory=dict, help="a table of tokens, as text, and what is added to their logits"
    )
    no_repeat_ngram: int = option(0, help="length of sequences never to repeat; 0 is off", validator=ge(0))
    top_k: int = option(0, help="keep the k most likely tokens; 0 is off", validator=ge(0))
    typical_p: float = option(1.0, help="keep typical tokens up to this probability; 1 is off", validator=_SHARE)
    top_p: float = option(1.0, help="keep the most likely tokens up to this probability; 1 is off", validator=_SHARE)
    min_p: float = option(
        0.0,
        help="keep tokens of at least this share of the highest probability; 0 is off",
        validator=and_(ge(0), le(1)),
    )
    temperature: float = option(1.0, help="what logits are divided by; 0 is greedy", validator=ge(0))
