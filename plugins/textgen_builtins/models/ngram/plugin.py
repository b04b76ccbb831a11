"""The n-gram model, and the trainer that counts."""

from __future__ import annotations

from typing import Final

import attrs
from attrs.validators import and_, ge, le, optional

from textgen import BuildContext, Component, hookimpl, option
from textgen.documents import end_id
from textgen.protocols import Model, Trainer

_CACHED_CONTEXTS: Final = 16_384
_CACHED_OF_DOCUMENT: Final = 2_048


@attrs.frozen
class NgramConfig:
    """An n-gram model with interpolated modified Kneser-Ney smoothing, and counts over words.

    Chen and Goodman, "An empirical study of smoothing techniques for language modeling", Computer
    Speech and Language 13 (1999): three discounts per order, continuation counts below the highest
    order, uniform at the root. Counts over words are of what follows the word so far, alone and
    together with words before it. The text so far is counted as well, as it is read.
    """

    order: int | None = option(
        None,
        help="tokens of the longest n-grams: each is predicted from order - 1 before it. "
        "Chosen by the length of the "
        "text and the entropy of its tokens if not set",
        validator=optional(and_(ge(1), le(64))),
    )
    cache_tokens: int | None = option(
        None,
        help="tokens of the text so far, the prompt among it, that the model learns from "
        "while it reads and writes: "
        "names, phrases and style come back. Each takes 12 to 24 bytes of memory for every "
        "text of a batch. 16,384 if "
        "not set, or 2,048 after training on documents; 0 learns from none",
        validator=optional(and_(ge(0), le(1_000_000))),
    )


@attrs.frozen
class CountConfig:
    """Fits an n-gram model by counting, all in memory: about 100 bytes a token."""

    max_tokens: int = option(
        10_000_000,
        help="tokens of the training text that are counted at most, in spans from 64 parts of "
        "it; 10 million take about a gigabyte of memory",
        validator=ge(1),
    )


def build_ngram(config: NgramConfig, context: BuildContext) -> Model:
    """A model without counts: every token is equally likely."""
    from textgen_builtins.models.ngram.model import NgramModel
    from textgen_builtins.models.ngram.words import WordReader

    assert context.tokenizer is not None
    reader, end = WordReader.of(context.tokenizer), end_id(context.tokenizer)
    cache_tokens = config.cache_tokens
    if cache_tokens is None:
        cache_tokens = _CACHED_CONTEXTS if end is None else _CACHED_OF_DOCUMENT
    return NgramModel(config.order, context.vocab_size, reader, cache_tokens, end)


def build_count(config: CountConfig, context: BuildContext) -> Trainer:
    """A trainer at the start."""
    from textgen_builtins.models.ngram.counting import CountTrainer

    return CountTrainer(config.max_tokens)


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `ngram`."""
    return [Component("ngram", NgramConfig, build_ngram)]


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `count`."""
    return [Component("count", CountConfig, build_count)]
