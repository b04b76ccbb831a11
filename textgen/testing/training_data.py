"""Small data sets to train on, and the training itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.checks import encode_documents
from textgen.data import Dataset
from textgen.files.reading import dump_tensors, load_tensors
from textgen.generation.sampling import log_softmax, to_numpy
from textgen.plugin.component import BuildContext
from textgen.protocols import Tensors, TrainerState, TrainingContext
from textgen.testing.environment import Subject, build_from_table

__tracebackhide__ = True  # pytest shows the test and the code of the component

_TOKENS: Final = 1800
_HELD_OUT: Final = 200
_WINDOW: Final = 16
TRAINING: Final = TrainingContext(seed=0, device="cpu")
BY_GRADIENT: Final[Mapping[str, Any]] = {"type": "sgd", "length": "1 epoch", "batch_size": 16}


@attrs.define(eq=False)
class Training:
    """A training from beginning to end.

    loss_before  of the model at the beginning
    events       that the trainer yielded
    tensors      of the model after each of them
    states       of the trainer after each of them
    seeds        that generators were given
    """

    model: Any
    loss_before: float
    events: list[Any] = attrs.field(factory=list)
    tensors: list[Tensors] = attrs.field(factory=list)
    states: list[TrainerState] = attrs.field(factory=list)
    seeds: list[str] = attrs.field(factory=list)


def small_dataset(subject: Subject, *, held_out: bool = True) -> Dataset:
    """So many tokens of the text, over and over, read-only as the engine's are."""
    size = subject.tokenizer.vocab_size
    ids = np.concatenate([*encode_documents(subject.tokenizer, subject.pieces)])
    tokens = np.resize(ids, _TOKENS).astype(np.min_scalar_type(size - 1))
    tokens.setflags(write=False)
    return Dataset(
        training=tokens[:-_HELD_OUT],
        validation=tokens[-_HELD_OUT:] if held_out else tokens[:0],
        vocab_size=size,
        window_length=_WINDOW,
        window_stride=_WINDOW,
    )


def is_torch_module(model: Any) -> bool:
    """Whether it trains by gradient, as far as can be told without torch."""
    return callable(getattr(model, "forward", None)) and callable(
        getattr(model, "parameters", None)
    )


def train(
    subject: Subject, model: Any, context: BuildContext, trainer: Mapping[str, Any] | None
) -> None:
    """Train with the trainer of a table; without one, a torch module by gradient, and others not at
    all.
    """
    table = trainer or (BY_GRADIENT if is_torch_module(model) else None)
    if table is None:
        return
    made = build_from_table(subject.plugins, "trainer", table, context)
    for _ in made.train(model, small_dataset(subject), TRAINING):
        pass


def text_loss(model: Any, data: Dataset, part: str = "training") -> float:
    """Mean cross-entropy of the text that is trained on, or held out, in nats per token."""
    tokens = np.asarray(getattr(data, part)[:600], np.int64)
    rows = log_softmax(to_numpy(model.decoder(1).score(tokens[None, :-1]))[0])
    return -float(rows[np.arange(len(rows)), tokens[1:]].mean())


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
