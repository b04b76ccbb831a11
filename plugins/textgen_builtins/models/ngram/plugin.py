"""The n-gram model, and the trainer that counts."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, le, optional

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Model, Trainer


@attrs.frozen
class NgramConfig:
    """An n-gram model with interpolated modified Kneser-Ney smoothing, and counts over words.

    Chen and Goodman, "An empirical study of smoothing techniques for language modeling", Computer Speech and
    Language 13 (1999): three discounts per order, continuation counts below the highest order, uniform at the root.
    Counts over words are of what follows the word so far, alone and together with words before it. The text so far
    counts too: it tells which names and phrases this text uses.
    """

    order: int | None = option(
        None,
        help="tokens of the longest n-grams: each is predicted from order - 1 before it. Chosen by the length of the "
        "text and the entropy of its tokens if not set",
        validator=optional(and_(ge(1), le(64))),
    )
    recent: int = option(
        2000,
        help="tokens of the text so far in which places are looked for that ended like it: names and phrases come "
        "back soon. What followed there counts as much as it told in the training text; 0 looks at none",
        validator=and_(ge(0), le(100_000)),
    )


@attrs.frozen
class CountConfig:
    """Fits an n-gram model by counting, all in memory: about 100 bytes a token."""

    max_tokens: int | None = option(
        None,
        help="tokens of the training text that are counted at most, in stretches from 64 places of it; if not set, the "
        "10 million that take about a gigabyte of memory",
        validator=optional(ge(1)),
    )


def build_ngram(config: NgramConfig, context: BuildContext) -> Model:
    """A model without counts: every token is equally likely."""
    from textgen_builtins.models.ngram.model import NgramModel
    from textgen_builtins.models.ngram.words import WordReader

    assert context.tokenizer is not None
    reader, end = WordReader.of(context.tokenizer), getattr(context.tokenizer, "end_id", None)
    return NgramModel(config.order, context.vocab_size, reader, config.recent, end)


def build_count(config: CountConfig, context: BuildContext) -> Trainer:
    """A trainer at the start."""
    from textgen_builtins.models.ngram.counting import CountTrainer

    return CountTrainer(config.max_tokens)


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `ngram`."""
    return [Component("ngram", NgramConfig, build_ngram, compatible_with=("count",))]


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `count`."""
    return [Component("count", CountConfig, build_count, compatible_with=("ngram",))]
