"""The flow of a run: which component is built and called when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from components import engine_of

import textgen
from textgen.events import Evaluated, StepDone
from textgen.plugin.component import KINDS
from textgen.protocols import TrainerState


class Notes:
    """Components of every kind that write down when they are built and called."""

    def __init__(self) -> None:
        self.flow: list[str] = []

    def note(self, what: str) -> None:
        if self.flow[-1:] != [what]:  # how often in a row is nobody's contract
            self.flow.append(what)

    def engine(self) -> textgen.Engine:
        makes = (
            NotedCorpus,
            NotedTokenizer,
            NotedModel,
            NotedTrainer,
            noted_sampler,
            NotedObserver,
        )
        parts = {kind: self.builder(kind, make) for kind, make in zip(KINDS, makes, strict=False)}
        return engine_of(**parts)

    def builder(self, kind: str, make: Callable[[Notes], Any]) -> Any:
        def build(context: textgen.BuildContext) -> Any:
            purpose = "" if kind != "model" else " to train" if context.training else " to generate"
            self.note(f"build {kind}{purpose}")
            return make(self)

        return build


class Closes:
    """A component that notes its end."""

    notes: Notes

    def close(self) -> None:
        self.notes.note(f"{type(self).__name__[5:].lower()}.close")


@attrs.frozen(eq=False)
class NotedCorpus(Closes):
    notes: Notes

    def read(self) -> Iterator[str]:
        self.notes.note("corpus.read")
        yield "ab" * 50


@attrs.frozen(eq=False)
class NotedTokenizer(Closes):
    notes: Notes
    vocab_size = 128

    def fit(self, pieces: Any) -> None:
        self.notes.note("tokenizer.fit")
        list(pieces)

    def encode(self, text: str) -> Any:
        return np.frombuffer(text.encode("ascii"), np.uint8)

    def decode(self, ids: Any) -> str:
        return bytes(np.asarray(ids, np.uint8)).decode("ascii")

    def to_dict(self) -> dict[str, Any]:
        self.notes.note("tokenizer.to_dict")
        return {"noted": True}

    def from_dict(self, state: Any) -> NotedTokenizer:
        self.notes.note(f"tokenizer.from_dict {state}")
        return self


@attrs.frozen(eq=False)
class NotedModel(Closes):
    notes: Notes
    batch_size = 1

    def tensors(self) -> dict[str, Any]:
        return {"weight": np.ones(3, np.float32)}

    def load_tensors(self, tensors: dict[str, Any]) -> None:
        self.notes.note(f"model.load_tensors {sorted(tensors)}")

    def decoder(self, batch_size: int) -> NotedModel:
        return self

    def extend(self, tokens: Any) -> Any:
        return np.zeros((1, 128), np.float32)

    def score(self, tokens: Any) -> Any:
        return np.zeros((*tokens.shape, 128), np.float32)

    def read_state(self) -> dict[str, Any]:
        return {}

    def write_state(self, state: dict[str, Any]) -> None:
        pass


@attrs.frozen(eq=False)
class NotedTrainer(Closes):
    notes: Notes

    def train(self, model: Any, data: Any, context: Any) -> Iterator[Any]:
        self.notes.note("trainer.train")
        for step in (1, 2):
            self.notes.note("trainer steps")
            yield StepDone(step=step, steps=2, epoch=1, loss=1.0, tokens=10)
        yield Evaluated(step=2, epoch=1, training_loss=1.0)

    def state(self) -> TrainerState:
        return TrainerState()

    def load_state(self, state: TrainerState) -> None:
        self.notes.note("trainer.load_state")


@attrs.frozen(eq=False)
class NotedObserver(Closes):
    notes: Notes

    def observe(self, event: Any) -> None:
        self.notes.note(type(event).__name__)


def noted_sampler(notes: Notes) -> Any:
    def sampler(logits: Any, history: Any) -> Any:
        notes.note("sampler")
        return logits

    return sampler


def test_the_flow_of_a_run(tmp_path: Path) -> None:
    notes, odd = Notes(), {"type": "odd"}
    tables = {
        **dict.fromkeys(("corpus", "tokenizer", "model", "trainer"), odd),
        "sampler": [odd],
        "observer": [odd],
        "data": {"window_length": 8},
        "device": "cpu",
        "generate": {"max_new_tokens": 1},
    }
    run = notes.engine().run(tables, output=tmp_path / "run")
    run.generator.close()
    assert notes.flow == [
        "build corpus",
        "build tokenizer",
        "corpus.read",
        "tokenizer.fit",
        "corpus.read",
        "tokenizer.to_dict",
        "tokenizer.from_dict {'noted': True}",
        "build sampler",
        "corpus.read",
        "build trainer",
        "build model to train",
        "build sampler",
        "sampler",
        "tokenizer.to_dict",
        "build observer",
        "RunStarted",
        "trainer.train",
        "trainer steps",
        "StepDone",
        "trainer steps",
        "StepDone",
        "Evaluation",
        "Checkpointed",
        "RunFinished",
        "observer.close",
        "model.close",
        "trainer.close",
        "tokenizer.close",
        "corpus.close",
        "build tokenizer",
        "tokenizer.from_dict {'noted': True}",
        "build model to generate",
        "model.load_tensors ['weight']",
        "build sampler",
        "sampler",
        "model.close",
        "tokenizer.close",
    ]
