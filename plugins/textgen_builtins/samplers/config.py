"""The options of the built-in samplers.

A sampler whose value changes nothing is left out of the chain.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
from attrs.validators import and_, ge, gt, le, max_len, optional

from textgen import NoOptions, option

_SHARE = and_(gt(0), le(1))
_MAX_FORM = 100_000  # characters of a form


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

    k: int = option(
        40, help="keep the k most likely tokens; 0 is off", validator=ge(0), argument="top_k"
    )


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
class PenaltiesConfig:
    """Makes tokens that occurred already less likely: repetition in prompt and text, the others in
    the text.
    """

    repetition: float = option(
        1.0,
        help="factor by which tokens in prompt and text get less likely; if tokens are "
        "characters, it spoils words; "
        "1 is off, below 1 encourages them",
        validator=gt(0),
        argument="repetition_penalty",
    )
    presence: float = option(
        0.0,
        help="subtracted once from the logits of generated tokens; 0 is off, below 0 "
        "encourages them",
        argument="presence_penalty",
    )
    frequency: float = option(
        0.0,
        help="subtracted from a logit for each time its token was generated; 0 is off, "
        "below 0 encourages",
        argument="frequency_penalty",
    )


@attrs.frozen
class LogitBiasConfig:
    """Makes chosen tokens more or less likely."""

    bias: dict[str, float] = option(
        help="a table of tokens, each as its text, and what is added to their logits",
        argument="logit_bias",
    )


@attrs.frozen
class XtcConfig:
    """Excludes at random the most likely tokens, all above a threshold but the least likely of them
    (XTC).
    """

    probability: float = option(
        0.0,
        help="how often tokens are excluded, from 0, which is off, to 1; 0.5 is usual",
        validator=and_(ge(0), le(1)),
        argument="xtc_probability",
    )
    threshold: float = option(
        0.1,
        help="tokens of at least this probability are excluded, except the least likely of "
        "them; above 0.5 is off",
        validator=and_(ge(0), le(1)),
        argument="xtc_threshold",
    )


@attrs.frozen
class DryConfig:
    """Makes words less likely that would extend a repetition of earlier text, more the longer and
    the more often (DRY).

    Lengths are counted in words, for any tokenizer, and only the first token of a word gets a
    penalty.
    """

    multiplier: float = option(
        0.0,
        help="subtracted from logits at the shortest repetition; 0 is off, 0.8 is usual",
        validator=ge(0),
        argument="dry_multiplier",
    )
    allowed_length: int = option(
        2,
        help="length in words of repetitions without a penalty",
        validator=ge(0),
        argument="dry_allowed_length",
    )


@attrs.frozen
class FormatConfig:
    """Restricts the text to a regular expression or a JSON schema, and ends it there. Needs
    llguidance.

    A text that may end or continue ends with the end of the document, if the tokenizer has one. A
    regular expression has no anchors, look-around, word boundaries or references. A JSON schema is
    read as llguidance does: objects may have keys that it does not list, unless
    `additionalProperties` is false, and keywords that it does not know say nothing.
    """

    regex: str | None = option(
        None,
        help="a regular expression that the whole generated text has to match",
        validator=optional(max_len(_MAX_FORM)),
        argument="regex",
    )
    schema: str | dict[str, Any] | None = option(
        None,
        help="a JSON schema that the generated text has to follow, as JSON or as a table",
        argument="json_schema",
    )

    def __attrs_post_init__(self) -> None:
        if isinstance(self.schema, dict):
            object.__setattr__(self, "schema", json.dumps(self.schema))
        if self.schema is not None and len(self.schema) > _MAX_FORM:
            raise ValueError(f"schema must be at most {_MAX_FORM:,} characters long")
        if self.regex is not None and self.schema is not None:
            raise ValueError("expected a regular expression or a JSON schema, not both")
