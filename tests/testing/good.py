"""A component of each kind that keeps its contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from array_api_compat import array_namespace, device

import textgen
from textgen import DOCUMENT_END, Component, CorpusError, NoOptions, PromptError, UsageError
from textgen.events import Evaluated, Evaluation, RunStarted, StepDone
from textgen.protocols import Moves, Ranking, TrainerState


class Part:
    """Needs nothing of its context."""

    def __init__(self, context=None):
        pass


class Corpus(Part):
    def read(self):
        yield from ("The first piece.\n", "", "And the second.\n")


class UnavailableCorpus(Corpus):
    def __init__(self, context):
        raise CorpusError("it is elsewhere")


class MissingCorpus(Corpus):
    def sources(self):
        raise CorpusError("they are elsewhere")


class Tokenizer(Part):
    """One token per character seen, 0 for others."""

    unknown_id: Any = 0
    characters: str | None = None

    @property
    def vocab_size(self):
        if self.characters is None:
            raise ValueError("not fitted")
        return len(self.characters) + 1

    def fit(self, pieces):
        self.characters = "".join(sorted(set("".join(pieces))))

    def encode(self, text):
        assert self.characters is not None
        return np.array([self.characters.find(c) + 1 for c in text], np.int64)

    def decode(self, ids):
        return "".join(("?" + str(self.characters))[i] for i in ids)

    def to_dict(self):
        return {"characters": self.characters}

    def from_dict(self, state):
        made = type(self)()
        made.characters = state["characters"]
        return made


class RefusingTokenizer(Tokenizer):
    """Says what it cannot encode, and has more ids than a byte."""

    unknown_id = None

    def fit(self, pieces):
        super().fit([*pieces, *map(chr, range(0x1200, 0x1300))])

    def encode(self, text):
        if lacking := [c for c in text if c not in str(self.characters)]:
            raise PromptError(lacking)
        return super().encode(text)


class EndTokenizer(Tokenizer):
    """Its last id stands for the end of a document. It knows no T, and decodes nothing for it."""

    end_id: Any = None

    @property
    def vocab_size(self):
        return super().vocab_size + (self.end_id is not None)

    def fit(self, pieces):
        read = list(pieces)
        super().fit(piece.replace("T", "") for piece in read if piece is not DOCUMENT_END)
        if DOCUMENT_END in read:
            self.end_id = super().vocab_size

    def decode(self, ids):
        return super().decode([i for i in ids if i not in (0, self.end_id)])

    def to_dict(self):
        return {**super().to_dict(), "end_id": self.end_id}

    def from_dict(self, state):
        made = super().from_dict(state)
        made.end_id = state["end_id"]
        return made


class Model:
    """Logits from a decaying memory of the tokens so far. Neither torch nor training."""

    decoder_class: Any = None

    def __init__(self, context):
        rng = np.random.default_rng(context.seed)
        self.weights = rng.normal(size=(context.vocab_size, context.vocab_size))

    def decoder(self, batch_size):
        return (self.decoder_class or Decoder)(self, batch_size)

    def tensors(self):
        return {"weights": self.weights}

    def load_tensors(self, tensors):
        if set(tensors) != {"weights"} or tensors["weights"].shape != self.weights.shape:
            raise ValueError("these are other weights")
        self.weights = tensors["weights"]


class Decoder:
    def __init__(self, model, batch_size):
        self.model = model
        self.memory = np.zeros((batch_size, len(model.weights)))

    @property
    def batch_size(self):
        return len(self.memory)

    def extend(self, tokens):
        for column in tokens.T:
            self.memory *= 0.5
            self.memory[np.arange(len(column)), column] += 1
        return np.stack([row @ self.model.weights for row in self.memory])

    def score(self, tokens):
        return np.stack([self.extend(tokens[:, t : t + 1]) for t in range(tokens.shape[1])], axis=1)

    def read_state(self):
        return {"memory": self.memory.copy()}

    def write_state(self, state):
        self.memory = state["memory"].copy()


class RowDecoder(Decoder):
    """Offers to take rows out and in."""

    def take(self, rows):
        taken = type(self)(self.model, len(rows))
        taken.memory = self.memory[rows]
        return taken

    def join(self, other):
        self.memory = np.concatenate([self.memory, other.memory])


class Trainer(Part):
    """Moves the head's bias towards the logarithm of the tokens' frequency, in four steps."""

    rate = 0.5
    step = 0
    evaluated = False

    def train(self, model, data, context):
        if not hasattr(model, "tensors"):
            raise UsageError("there is nothing to train: the model has no tensors")
        goal = np.log(np.bincount(data.training, minlength=data.vocab_size) + 1.0)
        while self.step < 4:
            self.step += 1
            self.update(model, goal)
            yield self.done(data)
        if not self.evaluated:
            self.evaluated = True
            loss = self.loss(model, data.validation) if len(data.validation) else None
            yield Evaluated(step=4, epoch=4, training_loss=2.0, validation_loss=loss)

    def loss(self, model, tokens):
        """In nats per token."""
        given = model.decoder(1).score(np.asarray(tokens[None, :-1], np.int64))[0]
        given = given - np.log(np.exp(given).sum(axis=-1, keepdims=True))
        return -float(given[np.arange(len(given)), tokens[1:]].mean())

    def update(self, model, goal):
        bias = model.tensors()["head.bias"]
        moved = (bias + self.rate * (goal - bias)).astype(np.float32)
        model.load_tensors({**model.tensors(), "head.bias": moved})

    def done(self, data):
        step, tokens = self.step, len(data.training)
        return StepDone(step=step, steps=4, epoch=step, loss=3.0, tokens=tokens)

    def state(self):
        return TrainerState({}, {"step": self.step, "evaluated": self.evaluated})

    def load_state(self, state):
        self.step, self.evaluated = state.values["step"], state.values["evaluated"]


class Sampler(Part):
    history = "none"

    def __call__(self, logits, history):
        return logits * 0.5


class DeviceSampler(Sampler):
    """Makes a new array on the device, and looks at a number."""

    def __call__(self, logits, history):
        xp = array_namespace(logits)
        places = xp.arange(logits.shape[1], device=device(logits))
        changed = xp.where(places == 0, logits * 0.5, logits)
        return changed if bool(xp.any(places > 0)) else logits


class StateSampler(Sampler):
    """Has a state, random numbers, and an end."""

    random = True
    ends = True

    def start(self, prompt):
        return {"seen": np.array([len(prompt), 0])}

    def __call__(self, logits, history):
        xp = array_namespace(logits)
        seen = history.state["seen"]
        factor = 1 + 0.1 * seen[:, 1] + history.random()[:, 0]
        changed = logits * xp.asarray(factor.astype(np.float32), device=device(logits))[:, None]
        over = xp.asarray(seen[:, 1] > 40, device=device(logits))
        return xp.astype(xp.where(over[:, None], -np.inf, changed), logits.dtype)

    def accept(self, tokens, logits, history):
        return {"seen": history.state["seen"] + [0, 1]}


class Observer:
    def __init__(self, context):
        self.path: Path = context.directory / "seen.txt"
        self.console = context.console

    def observe(self, event):
        if isinstance(event, RunStarted):
            rows = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
            self.path.write_text("".join(row for row in rows if int(row.split()[0]) <= event.step))
        if isinstance(event, Evaluation):
            with self.path.open("a") as file:
                file.write(self.row(event))

    def row(self, event):
        parameters = sum(array.size for array in event.model.tensors().values())
        return f"{event.step} {event.training_loss} {parameters}\n"


def command(config, context):
    @click.command("good")
    @click.option("--fail", is_flag=True)
    def good(fail):
        """Do nothing in particular."""
        if fail:
            raise RuntimeError("as asked")

    return good


def finished_run(config, context, spoil=str):
    """A run of counts, to which `spoil` does something."""
    path = context.folder / "run"
    if not path.exists():
        text = "the clock struck nine and nobody came. " * 30
        textgen.train(corpus=text, model="ngram", trainer="count", output=path)
        spoil(path)
    return path


class Strategy(Part):
    """Lets two texts grow, and takes the second. It counts the steps in its state."""

    lanes: Any = 2

    def start(self):
        return {"steps": np.zeros((), np.int64)}

    def step(self, lanes):
        steps = lanes.state["steps"]
        if len(lanes) == 1:
            return Moves([0, 0], [(), ()], {"steps": steps[[0, 0]]})
        if lanes.ended.all():
            return Ranking([1, 0], [float(steps[1]), 0.0])
        drawn = zip(lanes.ended, lanes.draw(), strict=True)
        return Moves([0, 1], [() if e else (t,) for e, t in drawn], {"steps": steps + 1})


class Sampling(Part):
    """Is a strategy that only draws."""

    lanes, draws_only = 1, True

    def step(self, lanes):
        return Moves([0], [self.pick(lanes)], final=len(lanes.tokens[0]) + 1)

    def pick(self, lanes):
        return lanes.draw()


KINDS = {
    "corpus": Corpus,
    "tokenizer": Tokenizer,
    "model": Model,
    "trainer": Trainer,
    "sampler": Sampler,
    "strategy": Strategy,
    "observer": Observer,
}


def offered(made):
    """A component without options.

    A Decoder is that of a model; other classes are called with the context.
    """
    if isinstance(made, type) and issubclass(made, Decoder):
        made = type("OfDecoder", (Model,), {"decoder_class": made})
    build = made if isinstance(made, type) else lambda context: made
    return Component("good", NoOptions, lambda config, context: build(context))


GOOD = {
    **{kind: offered(made) for kind, made in KINDS.items()},
    "command": Component("good", NoOptions, command),
    "run": Component("good", NoOptions, finished_run),
}
ALSO_GOOD = [
    ("corpus", UnavailableCorpus),
    ("corpus", MissingCorpus),
    ("tokenizer", RefusingTokenizer),
    ("model", RowDecoder),
    ("sampler", DeviceSampler),
    ("strategy", Sampling),
]
