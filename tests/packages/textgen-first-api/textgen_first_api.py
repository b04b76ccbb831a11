"""One component of each kind, written against the first plugin API. NEVER EDIT THIS FILE.

It stands for the plugins out there: what it does was asked for, and promised to work, by textgen
0.1 with plugin API 1. If a change of textgen breaks it, the change is wrong, or the plugin API's
number has to rise.
"""

import attrs

from textgen import BuildContext, Component, hookimpl, option


@attrs.frozen
class CountdownConfig:
    """Counts down, again and again."""

    start: int = option(9, help="the first number", validator=attrs.validators.ge(1))
    times: int = option(40, help="how often")


@attrs.frozen
class Countdown:
    start: int
    times: int

    def read(self):
        for _ in range(self.times):
            yield " ".join(str(number) for number in range(self.start, 0, -1)) + " go\n"


@attrs.frozen
class LettersConfig:
    """One token per character; what is new is <unk>."""


class Letters:
    def __init__(self, characters=None):
        self.characters = characters

    @property
    def vocab_size(self):
        if self.characters is None:
            raise ValueError("not fitted")
        return len(self.characters) + 1

    @property
    def unknown_id(self):
        return 0

    def fit(self, pieces):
        self.characters = "".join(sorted(set().union(*pieces)))

    def encode(self, text):
        import numpy as np

        return np.array([self.characters.find(character) + 1 for character in text], np.int64)

    def encode_pieces(self, pieces):
        for piece in pieces:
            yield self.encode(piece)

    def decode(self, ids):
        return "".join("?" if i == 0 else self.characters[int(i) - 1] for i in ids)

    def incremental_decoder(self):
        return AtOnce(self)

    def to_dict(self):
        return {"characters": self.characters}

    def from_dict(self, state):
        return Letters(state["characters"])


class AtOnce:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def decode(self, ids, final=False):
        return self.tokenizer.decode(ids)


@attrs.frozen
class PairsConfig:
    """Counts which token follows which."""

    added: float = option(0.01, help="added to each count")


class Pairs:
    def __init__(self, added, vocab_size):
        import numpy as np

        self.added = added
        self.counts = np.zeros((vocab_size, vocab_size), np.int64)

    def decoder(self, batch_size):
        return PairsDecoder(self, batch_size)

    def tensors(self):
        return {"counts": self.counts}

    def load_tensors(self, tensors):
        if tensors["counts"].shape != self.counts.shape:
            raise ValueError("counts of another vocabulary")
        self.counts = tensors["counts"].copy()


class PairsDecoder:
    def __init__(self, model, batch_size):
        import numpy as np

        self.logits = np.log(model.counts + model.added)
        self.last = np.zeros(batch_size, np.int64)

    @property
    def batch_size(self):
        return len(self.last)

    def extend(self, tokens):
        if tokens.shape[1]:
            self.last = tokens[:, -1].copy()
        return self.logits[self.last]

    def score(self, tokens):
        self.last = tokens[:, -1].copy()
        return self.logits[tokens]

    def read_state(self):
        return {"last": self.last.copy()}

    def write_state(self, state):
        self.last = state["last"].copy()


@attrs.frozen
class TallyConfig:
    """Goes through the training text once, in so many steps."""

    steps: int = option(4, help="steps")


class Tally:
    def __init__(self, steps):
        self.steps = steps
        self.step = 0

    def train(self, model, data, context):
        import numpy as np

        from textgen.events import Evaluated, StepDone

        assert context.seed >= 0
        assert context.device
        parts = np.array_split(np.arange(1, len(data.training)), self.steps)
        while self.step < self.steps:
            places = parts[self.step]
            np.add.at(model.counts, (data.training[places - 1], data.training[places]), 1)
            self.step += 1
            yield StepDone(step=self.step, steps=self.steps, epoch=1, loss=0.5, tokens=len(places))
        yield Evaluated(step=self.step, epoch=1, training_loss=0.5, validation_loss=0.25)

    def state(self):
        from textgen.protocols import TrainerState

        return TrainerState({}, {"step": self.step})

    def load_state(self, state):
        self.step = state.values["step"]


@attrs.frozen
class NoEchoConfig:
    """Forbids the token that came last."""

    character: str | None = option(None, help="forbid this one only")


@attrs.frozen
class NoEcho:
    only: int | None
    history = "tokens"

    def __call__(self, logits, history):
        from array_api_compat import array_namespace

        changed = array_namespace(logits).asarray(logits, copy=True)
        for row in range(logits.shape[0]):
            tokens = history.tokens(row)
            if len(tokens) and self.only in (None, int(tokens[-1])):
                changed[row, int(tokens[-1])] = -float("inf")
        return changed


def build_no_echo(config: NoEchoConfig, context: BuildContext):
    if config.character is None:
        return NoEcho(None)
    return NoEcho(int(context.tokenizer.encode(config.character)[0]))


@attrs.frozen
class LogbookConfig:
    """Writes the names of events to logbook.txt."""


class Logbook:
    def __init__(self, path):
        self.path = path

    def observe(self, event):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{type(event).__name__} {event.step}\n")


@attrs.frozen
class FirstConfig:
    """Says what a model writes first."""


def build_first(config: FirstConfig, context: BuildContext):
    import click

    @click.command("first")
    @click.argument("run")
    def first(run):
        """Say what a model writes first."""
        import textgen

        click.echo(textgen.load(run).generate("9", max_new_tokens=3).text)

    return first


@hookimpl
def textgen_corpora():
    return [
        Component(
            "countdown",
            CountdownConfig,
            lambda config, context: Countdown(config.start, config.times),
        )
    ]


@hookimpl
def textgen_tokenizers():
    return [Component("letters", LettersConfig, lambda config, context: Letters())]


@hookimpl
def textgen_models():
    return [
        Component(
            "pairs", PairsConfig, lambda config, context: Pairs(config.added, context.vocab_size)
        )
    ]


@hookimpl
def textgen_trainers():
    return [Component("tally", TallyConfig, lambda config, context: Tally(config.steps))]


@hookimpl
def textgen_samplers():
    return [Component("no-echo", NoEchoConfig, build_no_echo)]


@hookimpl
def textgen_observers():
    return [
        Component(
            "logbook",
            LogbookConfig,
            lambda config, context: Logbook(context.directory / "logbook.txt"),
        )
    ]


@hookimpl
def textgen_commands():
    return [Component("first", FirstConfig, build_first)]
