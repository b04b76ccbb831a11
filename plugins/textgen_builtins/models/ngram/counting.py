"""Counting n-grams, one order after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np

from textgen import UsageError
from textgen.data import Dataset, stretches
from textgen.events import Evaluated, StepDone, TrainingEvent
from textgen.pipeline.records import COUNT, structure
from textgen.protocols import Ids, TrainerState, TrainingContext
from textgen_builtins.models.gate import Gate, fit, gate_size
from textgen_builtins.models.loss import mean_loss
from textgen_builtins.models.ngram.bounded import BoundedCounter, Budget, Progress, release
from textgen_builtins.models.ngram.model import NgramModel
from textgen_builtins.models.ngram.smoothing import Floats, Ints, interpolation
from textgen_builtins.models.ngram.trie import Trie
from textgen_builtins.models.ngram.words import WordCounts, context_keys

_LEAD: Final = 256  # tokens read before those of the gate, so that no state is a beginning
_SAMPLE: Final = 4096  # tokens whose loss stands for the training text's, where words count
_BYTES_PER_TOKEN: Final = 100  # of memory while a text is counted at once
_BYTES_PER_WORD_TOKEN: Final = 500  # and its words
_PART, _PARTS = 1 << 18, 64  # tokens of a long text that tell its entropy


@attrs.define(eq=False)
class CountTrainer:
    """textgen.protocols.Trainer for an NgramModel: a step for each order, and one for words and the gate if it has one.

    A text whose counting takes more than the memory of the `budget`, or of which n-grams are to be left out, is counted
    in shards on disk. Steps are then parts of that work, whose loss is that of order 1, and the last step's that of the
    model on the last 4,096 tokens, and the text of the gate is not counted. Words are counted in so many tokens as fit
    into the memory.

    The model has its n-grams after the last order, and its words and gate after the last step. All that the trainer's
    state holds is how far it came: one that goes on counts again, in silence up to there, or if in shards from step 1.

    prune_entropy   of an n-gram, by how much it changes the model, in nats per token, to stay; see `pruning`
    max_tokens      of the training text that are counted, from many places of it; 0 for all
    thresholds      counts up to which n-grams of each order were left out, once that is known
    """

    gate_fraction: float = 0.05
    budget: Budget = Budget(10**9)
    prune_entropy: float = 0.0
    max_tokens: int = 0
    thresholds: tuple[int, ...] = attrs.field(default=(), init=False)
    _step: int = attrs.field(default=0, init=False)
    _evaluated: bool = attrs.field(default=False, init=False)
    _starts_again: bool = attrs.field(default=False, init=False)
    _goes_on: bool = attrs.field(default=False, init=False)  # from a state that was loaded

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """Count, yielding after each order the exact loss of the training text under a model of that order.

        After the last step of several experts it is the loss of the text's last 4,096 tokens. Then evaluate.
        """
        if not isinstance(model, NgramModel):
            raise UsageError(
                f"the trainer 'count' fits the model 'ngram', and the pipeline's is a {type(model).__name__}; "
                "choose another trainer.type or model.type"
            )
        if not self._goes_on:
            self._step, self._evaluated, self.thresholds = 0, False, ()
        self._goes_on = False
        if self._evaluated:
            return
        if 0 < self.max_tokens < len(data.training):
            data = attrs.evolve(data, training=stretches(data.training, self.max_tokens, _PARTS))
        order = model.order or usual_order(data.training)
        self._starts_again = in_shards = self._is_in_shards(data.training)
        progress = (
            _ended(self._in_shards(model, data, order))
            if in_shards
            else self._at_once(model, data, order)
        )
        step, loss = 0, float("nan")
        for step, done in enumerate(progress, 1):
            loss = done.loss
            if step > self._step:
                self._step = step
                epoch = 1 if in_shards else step
                yield StepDone(
                    step=step,
                    steps=max(step, done.steps),
                    epoch=epoch,
                    loss=loss,
                    tokens=done.tokens,
                )
        self._evaluated = True
        yield Evaluated(
            step=self._step,
            epoch=1 if in_shards else self._step,
            training_loss=loss,
            validation_loss=(
                mean_loss(model, data.validation, data.vocab_size)
                if model.is_gated
                else model.trie.loss(data.validation)
            ),
        )

    def state(self) -> TrainerState:
        """The steps made, and whether the model was evaluated."""
        step = self._step if self._evaluated or not self._starts_again else 0
        return TrainerState({}, {"step": step, "evaluated": self._evaluated})

    def load_state(self, state: TrainerState) -> None:
        """Go on from `state` in the next `train`. Raises ValueError if it is none of this trainer."""
        position = structure(_Position, state.values)
        self._step, self._evaluated, self._goes_on = position.step, position.evaluated, True

    def _is_in_shards(self, tokens: Ids) -> bool:
        left_out = self.prune_entropy > 0 or any(self.budget.prune or ())
        return left_out or _BYTES_PER_TOKEN * len(tokens) > self.budget.memory

    def _at_once(self, model: NgramModel, data: Dataset, order: int) -> Iterator[Progress]:
        """Count with all of the text in memory, giving the loss after each step."""
        tokens = data.training
        steps = order + model.is_gated
        for loss in _count_ngrams(model, tokens, order):
            yield Progress(steps, len(tokens), loss)
        if model.is_gated:
            model.words = self._count_words(model, tokens)
            size = gate_size(
                len(tokens), self.gate_fraction, len(model.expert_weights), data.vocab_size
            )
            if size:
                part = model.untrained(order)
                for _ in _count_ngrams(part, tokens[:-size], order):
                    pass
                part.words = self._count_words(part, tokens[:-size])
                model.gate = _gate(part, tokens, size)
            yield Progress(
                steps, len(tokens), mean_loss(model, tokens[-_SAMPLE:], data.vocab_size) or 0.0
            )

    def _in_shards(self, model: NgramModel, data: Dataset, order: int) -> Iterator[Progress]:
        """Count in bounded memory."""
        tokens, size = data.training, 0
        if model.is_gated:
            size = gate_size(
                len(tokens), self.gate_fraction, len(model.expert_weights), data.vocab_size
            )
        counted = tokens[: len(tokens) - size]
        counter = BoundedCounter(
            counted, data.vocab_size, order, self.budget, self.prune_entropy, model.end
        )
        steps = 0
        for progress in counter.run():
            steps = progress.steps
            yield progress
        self.thresholds, model.trie = counter.prune, counter.trie
        if model.is_gated:
            model.words = self._count_words(model, counted)
            if size:
                model.gate = _gate(model, tokens, size)
        yield Progress(steps, 0, mean_loss(model, tokens[-_SAMPLE:], data.vocab_size) or 0.0)
        release(tokens)

    def _count_words(self, model: NgramModel, tokens: Ids) -> tuple[WordCounts, ...]:
        """The counts of what follows words, by the number of words before the word so far; none without a reader."""
        if model.reader is None:
            return ()
        counted = stretches(tokens, max(_LEAD, self.budget.memory // _BYTES_PER_WORD_TOKEN), _PARTS)
        ids = np.asarray(counted, np.int64)
        words = model.reader.read(np.zeros((1, 3), np.uint64), ids[None, :-1])[0]  # (N - 1, 3)
        keys = context_keys(words, ids[:-1], model.kinds - 1)
        return tuple(WordCounts.count(model.trie.vocab_size, each, ids[1:]) for each in keys)


def _gate(model: NgramModel, tokens: Ids, size: int) -> Gate:
    """The gate fitted to the last `size` of `tokens` (N,), by a `model` that has not counted them."""
    decoder, end = model.decoder(1), np.asarray(tokens[-size - _LEAD :], np.int64)
    decoder.extend(end[None, : -size - 1])
    return fit(
        decoder.score_experts(end[None, -size - 1 : -1])[0], end[-size:], model.expert_weights
    )


def _ended(progress: Iterator[Progress]) -> Iterator[Progress]:
    """The same, of which the last has the number of all: until then that is an estimate."""
    steps, last = 0, None
    for done in progress:
        if last is not None:
            yield last
        last, steps = done, steps + 1
    if last is not None:
        yield attrs.evolve(last, steps=steps)


@attrs.frozen
class _Position:
    step: int = attrs.field(validator=COUNT)
    evaluated: bool


def usual_order(tokens: Ids) -> int:
    """The order that suits `tokens` (N,): about log N over the entropy of a token, so many as tell the places apart.

    The factor is measured: 7 for The Time Machine in small letters, 8 for Pride and Prejudice with all its characters.
    """
    joined = stretches(tokens, _PART * _PARTS, _PARTS)
    shares = np.bincount(joined) / max(1, len(joined))
    shares = shares[shares > 0]
    release(tokens)
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
    """What is known of order n: keys and counts by n-gram, and the text (N,) in terms of them.

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
    """Counts the n-grams of a text, an order at a time. Takes about 100 bytes per token of the text meanwhile."""

    def __init__(self, tokens: Ids, vocab_size: int, end: int | None = None) -> None:
        self._tokens, self._end = np.asarray(tokens, np.int64), end
        self._vocab_size = vocab_size
        self._orders: list[tuple[Ints, Ints]] = []  # keys and counts
        self._top: _Order | None = None
        self._lower = np.full(
            len(tokens), 1 / vocab_size
        )  # probabilities by the orders below the top

    def add_order(self) -> float:
        """Count the n-grams of the next order; return the mean loss of the text, in nats per token."""
        below, n = self._top, len(self._orders) + 1
        contexts = np.zeros(len(self._tokens), np.int64) if below is None else below.ngrams[:-1]
        keys, places, ngrams, counts = np.unique(
            contexts * self._vocab_size + self._tokens[n - 1 :],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        if below is not None:
            self._settle(below, places)
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

    def _settle(self, below: _Order, places: Ints) -> None:
        """Count what comes before the n-grams of the order below, now that another order is on top of it.

        places   (E,) where the longer n-grams occur first, in positions from n - 1 of theirs

        The beginning of the text counts as something that comes before, so that no count is 0. N-grams that begin with
        the end of a document keep their counts, as those that begin with <s> in KenLM.
        """
        begin = (
            self._tokens[: len(below.ngrams)] == self._end
            if self._end is not None and below.n > 1
            else []
        )
        kept = below.ngrams[begin] if len(begin) else below.ngrams[:0]
        counts = np.bincount(below.ngrams[places + 1], minlength=len(below.keys))
        if len(below.ngrams):
            counts[below.ngrams[0]] += 1
        counts[kept] = below.counts[kept]
        below.counts = counts
        self._orders[-1] = (below.keys, counts)
        self._lower = below.interpolated(self._lower, self._vocab_size)
