"""Counting n-grams, one order after the other."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np

from textgen import UsageError
from textgen.data import Dataset, sample_spans
from textgen.events import Evaluated, StepDone, TrainingEvent
from textgen.plugin import COUNT, from_json
from textgen.protocols import Ids, TrainerState, TrainingContext
from textgen_builtins.models.gate import Gate, fit, gate_size
from textgen_builtins.models.loss import mean_loss
from textgen_builtins.models.ngram.model import NgramModel
from textgen_builtins.models.ngram.smoothing import Floats, Ints, interpolation
from textgen_builtins.models.ngram.trie import Trie
from textgen_builtins.models.ngram.words import WordCounts, context_keys

_MOST_WORDS: Final = 2_000_000  # tokens whose words are counted: they take five times as much
_PART, _PARTS = 1 << 18, 64  # tokens of a long text that tell its entropy
_LEAD_TOKENS: Final = 256  # tokens read before those of the gate, so that no state is a beginning
_NO_TOKEN: Final = -1  # no token
_SAMPLE: Final = 4096  # tokens whose loss stands for the training text's, where words count


@attrs.define(eq=False)
class CountTrainer:
    """textgen.protocols.Trainer for an NgramModel: a step for each order, and one for words and the
    gate.

    max_tokens   tokens of the training text that are counted at most, in spans from 64 parts
                 of it, with a warning where the text has more

    The model has its n-grams after the last order, and its words and gate after the last step. The
    trainer's state holds only how far it came: one that resumes counts again, in silence up to
    there.
    """

    max_tokens: int = 10_000_000
    _step: int = attrs.field(default=0, init=False)
    _evaluated: bool = attrs.field(default=False, init=False)
    _resumes: bool = attrs.field(default=False, init=False)  # from a state that was loaded

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """Count, yielding after each order the exact loss of the training text under a model of
        that order.

        After the last step of several experts it is the loss of the text's last 4,096 tokens. Then
        evaluate.
        """
        if not isinstance(model, NgramModel):
            raise UsageError(
                f"the trainer 'count' fits the model 'ngram', and the pipeline's is a "
                f"{type(model).__name__}; "
                "choose another trainer.type or model.type"
            )
        if not self._resumes:
            self._step, self._evaluated = 0, False
        self._resumes = False
        if self._evaluated:
            return
        tokens, loss = self._counted(data.training), float("nan")
        order = model.order or usual_order(tokens)
        steps = order + model.is_gated
        for step, loss in enumerate(_losses(model, tokens, order), 1):
            if step > self._step:
                self._step = step
                yield StepDone(step=step, steps=steps, epoch=step, loss=loss, tokens=len(tokens))
        self._evaluated = True
        yield Evaluated(
            step=self._step,
            epoch=self._step,
            training_loss=loss,
            validation_loss=mean_loss(model, data.validation, data.vocab_size, in_order=True),
        )

    def state(self) -> TrainerState:
        """The steps made, and whether the model was evaluated."""
        return TrainerState({}, {"step": self._step, "evaluated": self._evaluated})

    def load_state(self, state: TrainerState) -> None:
        """Resume from `state` in the next `train`.

        Raises ValueError if it is not a state of this trainer.
        """
        position = from_json(_Position, state.values)
        self._step, self._evaluated, self._resumes = position.step, position.evaluated, True

    def _counted(self, tokens: Ids) -> Ids:
        if len(tokens) > self.max_tokens:
            warnings.warn(
                f"{self.max_tokens:,} of the {len(tokens):,} tokens of the text are counted, from "
                f"{_PARTS} parts of it; "
                "max_tokens of the trainer counts more, for 100 bytes of memory each",
                stacklevel=2,
            )
        return sample_spans(tokens, self.max_tokens, _PARTS)


def _losses(model: NgramModel, tokens: Ids, order: int) -> Iterator[float]:
    """Count, giving the loss after each step."""
    yield from _count_ngrams(model, tokens, order)
    if not model.is_gated:
        return
    size = model.trie.vocab_size
    model.words = _count_words(model, tokens)
    held_out = gate_size(len(tokens), len(model.expert_weights), size)
    if model.fits_gate and held_out:
        part = model.untrained(order)
        for _ in _count_ngrams(part, tokens[:-held_out], order):
            pass
        part.words = _count_words(part, tokens[:-held_out])
        model.gate = _gate(part, tokens, held_out)
    yield mean_loss(model, tokens[-_SAMPLE:], size) or 0.0


def _count_words(model: NgramModel, tokens: Ids) -> tuple[WordCounts, ...]:
    """The counts of what follows words, by the number of words before the word so far; none without
    a reader.
    """
    if model.reader is None:
        return ()
    ids = np.asarray(sample_spans(tokens, _MOST_WORDS, _PARTS), np.int64)
    words = model.reader.read(np.zeros((1, 3), np.uint64), ids[None, :-1])[0]  # (N - 1, 3)
    keys = context_keys(words, ids[:-1])
    return tuple(WordCounts.count(model.trie.vocab_size, each, ids[1:]) for each in keys)


def _gate(model: NgramModel, tokens: Ids, size: int) -> Gate:
    """The gate fitted to the last `size` of `tokens` (N,), by a `model` that has not counted
    them.
    """
    decoder, end = model.decoder(1), np.asarray(tokens[-size - _LEAD_TOKENS :], np.int64)
    decoder.extend(end[None, : -size - 1])
    return fit(
        decoder.score_experts(end[None, -size - 1 : -1])[0], end[-size:], model.expert_weights
    )


@attrs.frozen
class _Position:
    step: int = attrs.field(validator=COUNT)
    evaluated: bool


def usual_order(tokens: Ids) -> int:
    """The order that suits `tokens` (N,): about log N over the entropy of a token, so many as tell
    the places apart.

    The factor is measured: 7 for The Time Machine in small letters, 8 for Pride and Prejudice with
    all its characters.
    """
    joined = sample_spans(tokens, _PART * _PARTS, _PARTS)
    shares = np.bincount(joined) / max(1, len(joined))
    shares = shares[shares > 0]
    entropy = -float((shares * np.log(shares)).sum())
    return int(np.clip(round(1.75 * math.log(max(2, len(tokens))) / max(entropy, 0.1)), 2, 12))


def _count_ngrams(model: NgramModel, tokens: Ids, order: int) -> Iterator[float]:
    """Count n-grams, giving the loss of a model of each order; the last becomes the model's."""
    counter = Counter(tokens, model.trie.vocab_size, model.end)
    for n in range(1, order + 1):
        loss = counter.add_order()
        if n == order:
            model.trie = counter.trie()
        yield loss


@attrs.define(eq=False)
class _Order:
    """Statistics of order n: keys and counts by n-gram, and the text (N,) in terms of them.

    keys       (E,) context · V + last token, rising; contexts are numbered from 0 within the order
    size       how many contexts there are
    contexts   (N - n + 1,) the context of each position from n - 1 on
    ngrams     (N - n + 1,) and the n-gram that ends there
    """

    n: int
    keys: Ints
    counts: Ints
    size: int
    contexts: Ints
    ngrams: Ints

    def interpolated(self, lower: Floats, vocab_size: int) -> Floats:
        """(N,) the probability of each token of the text, given those by the orders below."""
        own, freed = interpolation(self.counts, self.keys // vocab_size, self.size)
        probabilities = lower.copy()  # the first n - 1 tokens have no context of n - 1
        probabilities[self.n - 1 :] = own[self.ngrams] + freed[self.contexts] * lower[self.n - 1 :]
        return probabilities


class Counter:
    """Counts the n-grams of a text, an order at a time.

    Takes about 100 bytes per token of the text meanwhile.
    """

    def __init__(self, tokens: Ids, vocab_size: int, end: int | None = None) -> None:
        self._tokens, self._end = np.asarray(tokens, np.int64), _NO_TOKEN if end is None else end
        self._vocab_size = vocab_size
        self._orders: list[tuple[Ints, Ints]] = []  # keys and counts
        self._top: _Order | None = None
        self._lower = np.full(
            len(tokens), 1 / vocab_size
        )  # probabilities by the orders below the top

    def add_order(self) -> float:
        """Count the n-grams of the next order; return the mean loss of the text, in nats per
        token.
        """
        below, n = self._top, len(self._orders) + 1
        contexts = np.zeros(len(self._tokens), np.int64) if below is None else below.ngrams[:-1]
        keys, firsts, ngrams, counts = np.unique(
            contexts * self._vocab_size + self._tokens[n - 1 :],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        if below is not None:
            self._settle(below, firsts)
        self._top = _Order(
            n, keys, counts, 1 if below is None else len(below.keys), contexts, ngrams
        )
        self._orders.append((keys, counts))
        return -float(np.log(self._top.interpolated(self._lower, self._vocab_size)[1:]).mean())

    def trie(self) -> Trie:
        """The n-grams of the orders so far."""
        sizes = np.array([len(keys) for keys, _ in self._orders], np.int64)
        first_nodes = np.concatenate([[0], 1 + np.cumsum([0, *sizes[:-2]])])[: len(sizes)]
        keys = [
            keys + first * self._vocab_size
            for (keys, _), first in zip(self._orders, first_nodes, strict=True)
        ]
        counts = np.concatenate([counts for _, counts in self._orders])
        return Trie(self._vocab_size, np.concatenate(keys), counts, sizes.tolist())

    def _settle(self, below: _Order, firsts: Ints) -> None:
        """Count what comes before the n-grams of the order below, now that another order is on top
        of it.

        firsts   (E,) where the longer n-grams occur first, in positions from n - 1 of theirs

        The beginning of the text counts as something that comes before, so that no count is 0.
        N-grams that begin with the end of a document keep their counts, as those that begin with
        <s> in KenLM.
        """
        begin = self._tokens[: len(below.ngrams)] == (self._end if below.n > 1 else _NO_TOKEN)
        kept = below.ngrams[begin]
        counts = np.bincount(below.ngrams[firsts + 1], minlength=len(below.keys))
        if len(below.ngrams):
            counts[below.ngrams[0]] += 1
        counts[kept] = below.counts[kept]
        below.counts = counts
        self._orders[-1] = (below.keys, counts)
        self._lower = below.interpolated(self._lower, self._vocab_size)
