"""Fits the one number of a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np

from textgen import CorpusError, UsageError
from textgen.data import Dataset
from textgen.events import Evaluated, StepDone, TrainingEvent
from textgen.protocols import Ids, Model, TrainerState, TrainingContext
from textgen_ngram.mixture_model import Mixture, log_softmax
from textgen_ngram.smoothing import Floats

_STEPS: Final = 30  # halvings: the weight is known to a part in a thousand million
_BLOCK: Final = 1 << 22  # probabilities held at once, of all tokens of the vocabulary: 32 MiB an array


@attrs.define(eq=False)
class WeightTrainer:
    """textgen.protocols.Trainer for a Mixture.

    The loss of the held-out text is a convex function of the weight, so its slope changes sign once: each step
    halves the interval in which it does.
    """

    _step: int = 0
    _low: float = 0.0
    _high: float = 1.0
    _evaluated: bool = False

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """Halve the interval, then evaluate. All losses are of the held-out text, which the weight is fitted to."""
        if not isinstance(model, Mixture):
            raise UsageError(
                f"the trainer 'mixture' fits the model 'mixture', and the pipeline's is a {type(model).__name__}; "
                "choose another trainer.type or model.type"
            )
        if len(data.validation) < 2:
            raise CorpusError(
                "a mixture's weight is fitted to held-out text, and nothing is held out; raise data.validation_fraction"
            )
        if self._evaluated:
            return
        first, second = (_token_log_probabilities(part.model, data.validation, data.vocab_size) for part in model.parts)
        while self._step < _STEPS:
            middle = (self._low + self._high) / 2
            if _slope(first, second, middle) < 0:
                self._low = middle
            else:
                self._high = middle
            self._step += 1
            model.weight = (self._low + self._high) / 2
            loss = _loss(first, second, model.weight)
            yield StepDone(step=self._step, steps=_STEPS, epoch=1, loss=loss, tokens=len(data.validation))
        self._evaluated = True
        # Where one part is better at every token, halving only comes near the end of the interval.
        model.weight = min(model.weight, 0.0, 1.0, key=lambda weight: _loss(first, second, weight))
        loss = _loss(first, second, model.weight)
        yield Evaluated(step=self._step, epoch=1, training_loss=loss, validation_loss=loss)

    def state(self) -> TrainerState:
        """The interval, and how many halvings there were."""
        values = {"step": self._step, "low": self._low, "high": self._high, "evaluated": self._evaluated}
        return TrainerState({}, values)

    def load_state(self, state: TrainerState) -> None:
        """Go on from `state` in the next `train`."""
        values = state.values
        self._step, self._evaluated = values["step"], values["evaluated"]
        self._low, self._high = values["low"], values["high"]


def _token_log_probabilities(model: Model, tokens: Ids, vocab_size: int) -> Floats:
    """(N - 1,) log P, in nats, of each of `tokens` (N,) from the second on, read as one stream."""
    decoder, found = model.decoder(1), []
    size = max(1, _BLOCK // vocab_size)
    for start in range(0, len(tokens) - 1, size):
        block = tokens[start : start + size + 1].astype(np.int64)
        rows = log_softmax(decoder.score(block[None, :-1]))[0]
        found.append(rows[np.arange(len(rows)), block[1:]])
    return np.concatenate(found)


def _loss(first: Floats, second: Floats, weight: float) -> float:
    """Mean cross-entropy, in nats, of tokens with the given log probabilities."""
    with np.errstate(divide="ignore"):
        own, other = np.log([weight, 1 - weight])
    return -float(np.logaddexp(first + own, second + other).mean())


def _slope(first: Floats, second: Floats, weight: float) -> float:
    """The derivative of the loss by the weight, for 0 < weight < 1: the mean of (P2 - P1) / P."""
    peak = np.maximum(first, second)  # taken off, so that not both probabilities are 0 in floating point
    p, q = np.exp(first - peak), np.exp(second - peak)
    return float(((q - p) / (weight * p + (1 - weight) * q)).mean())
