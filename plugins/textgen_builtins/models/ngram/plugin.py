"""The n-gram model, and the trainer that counts."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final

import attrs
from attrs.validators import and_, ge, le, optional

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Model, Trainer

_MEMORY: Final = re.compile(r"(\d+(?:\.\d+)?) ?(MB|GB)")
_BYTES: Final = {"MB": 10**6, "GB": 10**9}
_LEAST_MEMORY: Final = 200 * 10**6


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
    word_contexts: int = option(
        2,
        help="words before the word so far that it is counted with; 0 counts no words. Words are runs of letters",
        validator=and_(ge(0), le(2)),
    )
    recent: int = option(
        2000,
        help="tokens of the text so far in which places are looked for that ended like it: names and phrases come "
        "back soon. What followed there counts as much as it told in the training text; 0 looks at none",
        validator=and_(ge(0), le(100_000)),
    )


def _check_memory(_instance: Any, _attribute: Any, value: str) -> None:
    if not _MEMORY.fullmatch(value) or bytes_of(value) < _LEAST_MEMORY:
        raise ValueError('must be a size such as "500MB" or "1.5GB", and at least 200MB')


def _check_prune(_instance: Any, _attribute: Any, value: tuple[int, ...]) -> None:
    if not value or value[0] != 0 or any(b < a for a, b in pairwise(value)):
        raise ValueError(
            "must begin with 0, and no count be less than the one before, as in [0, 0, 1]"
        )


def bytes_of(memory: str) -> int:
    """The bytes of a size such as "500MB" or "1.5GB"."""
    number, unit = _MEMORY.fullmatch(memory).groups()  # type: ignore[union-attr]
    return int(float(number) * _BYTES[unit])


@attrs.frozen
class CountConfig:
    """Fits an n-gram model by counting: at once, or in sorted shards on disk where that takes too much memory."""

    gate_fraction: float = option(
        0.05,
        help="share of the training text, at its end and at most 20,000 tokens, that the weights of n-grams and words "
        "are fitted to, for which the text before it is counted apart; 0 leaves them at what suits prose",
        validator=and_(ge(0), le(0.5)),
    )
    memory: str = option(
        "1GB",
        help='what counting may take, about, in all its processes together, such as "500MB". A text that takes more, '
        "100 bytes a token, is counted in shards on disk",
        validator=_check_memory,
    )
    processes: int = option(
        0,
        help="processes that count in shards; one a core if 0, and fewer for a short text",
        validator=ge(0),
    )
    prune: tuple[int, ...] | None = option(
        None,
        help="for each order, the last also for all after it: n-grams that occur so often or less are left out, as "
        "KenLM's --prune. If not set, as few as lets the model fit into the memory; [0] leaves out none",
        validator=optional(_check_prune),
    )
    max_tokens: int = option(
        0,
        help="how many tokens of the training text are counted at most, from many places of it; 0 counts all",
        validator=ge(0),
    )
    prune_entropy: float = option(
        0.0,
        help="n-grams that change the cross-entropy of the text by less, in nats per token, are left out (Stolcke, "
        "1998): 1e-9 for large texts, 1e-6 for small ones; 0 leaves out none",
        validator=ge(0),
    )


def build_ngram(config: NgramConfig, context: BuildContext) -> Model:
    """A model without counts: every token is equally likely."""
    from textgen_builtins.models.ngram.model import NgramModel
    from textgen_builtins.models.ngram.words import WordReader

    assert context.tokenizer is not None
    reader = WordReader.of(context.tokenizer) if config.word_contexts else None
    end = getattr(context.tokenizer, "end_id", None)
    return NgramModel(
        config.order, context.vocab_size, config.word_contexts, reader, config.recent, end
    )


def build_count(config: CountConfig, context: BuildContext) -> Trainer:
    """A trainer at the start."""
    from textgen_builtins.models.ngram.bounded import Budget
    from textgen_builtins.models.ngram.counting import CountTrainer

    budget = Budget(bytes_of(config.memory), config.processes, config.prune)
    return CountTrainer(config.gate_fraction, budget, config.prune_entropy, config.max_tokens)


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `ngram`."""
    return [Component("ngram", NgramConfig, build_ngram, goes_with=("count",))]


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `count`."""
    return [Component("count", CountConfig, build_count, goes_with=("ngram",))]
