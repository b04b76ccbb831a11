"""A plugin in one file, for tests of commands that start processes: a model of counts, which needs
no torch.

Its trainer counts a part of the text in each step, writes down each step that it does, and may fail
or take its time.
"""

import time
from pathlib import Path

import attrs
import numpy as np

from textgen import Component, hookimpl, option
from textgen.events import Evaluated, StepDone
from textgen.protocols import TrainerState


@attrs.frozen
class PairsConfig:
    """Counts which token follows which."""

    added: float = option(0.5, help="added to each count")


class Pairs:
    def __init__(self, added, vocab_size):
        self.added = added
        self.counts = np.zeros((vocab_size, vocab_size), np.int64)

    def log_probabilities(self):
        counts = self.counts + self.added
        return np.log(counts / counts.sum(axis=1, keepdims=True))

    def decoder(self, batch_size):
        return PairsDecoder(self, batch_size)

    def tensors(self):
        return {"counts": self.counts}

    def load_tensors(self, tensors):
        self.counts = tensors["counts"].copy()


class PairsDecoder:
    def __init__(self, model, batch_size):
        self.logits = model.log_probabilities()
        self.write_state({"last": np.zeros(batch_size, np.int64)})

    def extend(self, tokens):
        if tokens.shape[1]:
            self.last = tokens[:, -1].copy()
        return self.logits[self.last]

    def score(self, tokens):
        self.extend(tokens)
        return self.logits[tokens]

    def read_state(self):
        return {"last": self.last.copy()}

    def write_state(self, state):
        self.last = state["last"].copy()
        self.batch_size = len(self.last)


@attrs.frozen
class TallyConfig:
    """Goes through the training text once, in so many steps."""

    steps: int = option(4, help="steps")
    pause: float = option(0.0, help="seconds that a step takes")
    times: int = option(1, help="how often each pair is counted")
    fails_at: int | None = option(None, help="step that fails")
    log: Path | None = option(None, help="a file to write each step to")


class Tally:
    def __init__(self, config):
        self.config = config
        self.step, self.is_to_evaluate = 0, False

    def train(self, model, data, context):
        steps, held_out = self.config.steps, np.asarray(data.validation)
        parts = np.array_split(np.arange(1, len(data.training)), steps)
        while self.step < steps or self.is_to_evaluate:
            if not self.is_to_evaluate:
                yield self._count(model, data.training, parts[self.step])
            loss = -float(model.log_probabilities()[held_out[:-1], held_out[1:]].mean())
            self.is_to_evaluate = False
            yield Evaluated(step=self.step, epoch=1, training_loss=loss + 0.1, validation_loss=loss)

    def _count(self, model, tokens, places):
        config = self.config
        np.add.at(model.counts, (tokens[places - 1], tokens[places]), config.times)
        time.sleep(config.pause)
        self.step, self.is_to_evaluate = self.step + 1, True
        if self.step == config.fails_at:
            raise RuntimeError("the tally sheet is full")
        if config.log is not None:
            with config.log.open("a") as file:
                file.write(f"{self.step}\n")
        return StepDone(step=self.step, steps=config.steps, epoch=1, loss=0.5, tokens=len(places))

    def state(self):
        return TrainerState({}, {"step": self.step, "is_to_evaluate": self.is_to_evaluate})

    def load_state(self, state):
        self.step, self.is_to_evaluate = state.values["step"], state.values["is_to_evaluate"]


@hookimpl
def textgen_models():
    return [
        Component(
            "pairs", PairsConfig, lambda config, context: Pairs(config.added, context.vocab_size)
        )
    ]


@hookimpl
def textgen_trainers():
    return [Component("tally", TallyConfig, lambda config, context: Tally(config))]
