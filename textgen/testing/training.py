"""Training in the checks of models, trainers and objectives."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.checks import encode_documents
from textgen.data import Dataset
from textgen.files.tensors import dump_tensors, load_tensors
from textgen.generation.sampling.draw import log_softmax, to_numpy
from textgen.protocols import Ids, Tensors, TrainerState, TrainingContext
from textgen.testing.outcomes import Violation
from textgen.testing.suite import Suite

__tracebackhide__ = True  # pytest shows the test and the code of the component

_TOKENS: Final = 1800
_HELD_OUT: Final = 200
_WINDOW: Final = 16


@attrs.define(eq=False)
class Training:
    """A training from beginning to end: the model, the events that the trainer yielded, and the
    weights and the trainer's state after each of them.
    """

    model: Any
    events: list[Any] = attrs.field(factory=list)
    tensors: list[Tensors] = attrs.field(factory=list)
    states: list[TrainerState] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class TrainingSuite(Suite):
    """A suite whose checks train."""

    def data(self, *, held_out: bool = True) -> Dataset:
        """Data of so many tokens of the text, over and over, read-only as the engine's are."""
        size = self.tokenizer.vocab_size
        ids = np.concatenate([*encode_documents(self.tokenizer, self.pieces)])
        tokens = np.resize(ids, _TOKENS).astype(np.min_scalar_type(size - 1))
        tokens.setflags(write=False)
        return Dataset(
            training=tokens[:-_HELD_OUT],
            validation=tokens[-_HELD_OUT:] if held_out else tokens[:0],
            vocab_size=size,
            window_length=_WINDOW,
            window_stride=_WINDOW,
        )

    def train(self, trainer: Any, model: Any, *, held_out: bool = True, seed: int = 0) -> Training:
        """Train a model to the end."""
        training, context = Training(model), TrainingContext(seed=seed, device="cpu")
        events = trainer.train(model, self.data(held_out=held_out), context)
        if events is None:
            raise Violation("train() gave None; is a `yield` missing?", "trainer-events")
        for event in events:
            training.events.append(event)
            training.tensors.append(copy.deepcopy(model.tensors()))
            training.states.append(copy.deepcopy(trainer.state()))
        return training

    def text_loss(self, model: Any, part: str = "training") -> float:
        """Mean cross-entropy of the text that is trained on, or held out, in nats per token."""
        tokens = np.asarray(getattr(self.data(), part)[:600], np.int64)
        rows = log_softmax(to_numpy(model.decoder(1).score(tokens[None, :-1]))[0])
        return -float(rows[np.arange(len(rows)), tokens[1:]].mean())

    def tokens(self, batch: int, length: int, seed: int = 0) -> Ids:
        """Some tokens (B, T)."""
        return np.random.default_rng(seed).integers(0, self.tokenizer.vocab_size, (batch, length))


def is_torch_module(model: Any) -> bool:
    """Whether it trains by gradient, as far as can be told without torch."""
    return all(callable(getattr(model, name, None)) for name in ("forward", "parameters"))


def written_and_read(tensors: Tensors) -> Tensors:
    """Tensors after a way through a file."""
    return load_tensors(Path("state.safetensors"), dump_tensors(tensors))


def differing(first: Tensors, second: Tensors) -> str:
    """The name of a weight that is not the same; nothing if all are."""
    different = (
        name
        for name in second
        if not np.array_equal(first.get(name, ()), second[name], equal_nan=True)
    )
    return next(different, "")
