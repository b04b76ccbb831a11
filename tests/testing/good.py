"""A component of each kind that keeps its contract."""

from pathlib import Path
from typing import Any

import click
import numpy as np
from array_api_compat import array_namespace, device
from good_models import Decoder, Model, Part, RowDecoder, Trainer

import textgen
from textgen import DOCUMENT_END, Component, CorpusError, NoOptions, PromptError
from textgen.events import Evaluation, RunStarted
from textgen.gradient import NextToken, validation_batches
from textgen.protocols import Moves, Ranking


class Corpus(Part):
    def read(self):
        yield from ("The first piece.\n", "", "And the second.\n")


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
    def good():
        """Do nothing in particular."""

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


class Objective(Part, NextToken):
    """Holds windows of its own out."""

    def validation(self, data, options):
        yield from validation_batches(options, data.validation_windows())


KINDS = {
    "corpus": Corpus,
    "tokenizer": Tokenizer,
    "model": Model,
    "trainer": Trainer,
    "objective": Objective,
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
    ("corpus", MissingCorpus),
    ("tokenizer", RefusingTokenizer),
    ("model", RowDecoder),
    ("sampler", DeviceSampler),
    ("strategy", Sampling),
]
