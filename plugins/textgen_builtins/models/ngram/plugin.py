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
    Counts over words are of what follows the word so far, alone and together with words before it.
    """

    order: int | None = option(
        None,
        help="tokens of the longest n-grams: each is predicted from order - 1 before it. Chosen by the length of the "
        "text and the entropy of its tokens if not set",
        validator=optional(and_(ge(1), le(64))),
    )
    word_contexts: int = option(
        2,
        help="words before the word so far that it is counted with; 0 counts no words. Words are runs of letters",
        validator=and_(ge(0), le(2)),
    )


@attrs.frozen
class CountConfig:
    """Fits an n-gram model by counting: one pass over the text for each order, and one for words."""

    gate_fraction: float = option(
        0.05,
        help="share of the training text, at its end and at most 20,000 tokens, that the weights of n-grams and words "
        "are fitted to, for which the text before it is counted apart; 0 leaves them at what suits prose",
        validator=and_(ge(0), le(0.5)),
    )


def build_ngram(config: NgramConfig, context: BuildContext) -> Model:
    """A model without counts: every token is equally likely."""
    from textgen_builtins.models.ngram.model import NgramModel
    from textgen_builtins.models.ngram.words import WordReader

    reader = None
    if config.word_contexts:
        assert context.tokenizer is not None
        reader = WordReader.of(context.tokenizer)
    return NgramModel(config.order, context.vocab_size, config.word_contexts, reader)


def build_count(config: CountConfig, context: BuildContext) -> Trainer:
    """A trainer at the start."""
    from textgen_builtins.models.ngram.counting import CountTrainer

    return CountTrainer(config.gate_fraction)


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `ngram`."""
    return [Component("ngram", NgramConfig, build_ngram, goes_with=("count",))]


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `count`."""
    return [Component("count", CountConfig, build_count, goes_with=("ngram",))]
