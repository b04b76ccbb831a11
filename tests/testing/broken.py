"""Components that break one statement of their contract each: a good one with an override."""

from __future__ import annotations

import itertools
import random
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import click
import good
import numpy as np
import torch
from broken_models import MODELS, MODULES, TRAINERS
from checking import NOISE, Case, broken, command, raising, then
from good import (
    Corpus,
    EndTokenizer,
    Model,
    Observer,
    Sampler,
    Sampling,
    StateSampler,
    Strategy,
    Tokenizer,
    Trainer,
    offered,
)

from campaigns.mutations import seal
from textgen import Component, CorpusError, NoOptions, UsageError, option
from textgen.events import Evaluation, RunFinished, RunStarted, StepDone
from textgen.protocols import Moves, Ranking

NUMBERS = itertools.count()


# Records, options, methods, and what holds for all kinds.


@attrs.frozen
class Undescribed:
    size: int = option(3, help="how many")


@attrs.frozen
class Silent:
    """Has an option without help."""

    size: int = 3


@attrs.define
class Changing:
    """Is not frozen."""

    size: int = option(3, help="how many")


@attrs.frozen
class Diverging:
    """Refuses its own defaults together."""

    least: int = option(4, help="how many at least")
    most: int = option(3, help="how many at most")

    def __attrs_post_init__(self):
        if self.least > self.most:
            raise ValueError("least is above most")


@attrs.frozen
class Required:
    """Needs an option."""

    size: int = option(help="how many")


@attrs.frozen
class Mistyped:
    """Has a default of another type."""

    size: int = option("three", help="how many")


@attrs.frozen(eq=False)
class Unequal:
    """Is like no other."""


def endless(logits, history):
    while True:
        logits = logits * 0.5


def change_torch(self, context):
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)


def linger():
    """Outlive the check, though not the test."""
    threading.Thread(target=time.sleep, args=[1.5]).start()


def recorded(statement, seen, config, name="odd", check=""):
    component = Component(name, config, lambda c, x: Sampler(x))
    return Case("sampler", statement, seen, component, check=check)


GENERAL = [
    recorded("component-record", "no help for size", Silent),
    recorded("component-record", "has no docstring", Undescribed),
    recorded("component-record", "can be changed", Changing),
    recorded("component-options", "least is above most", Diverging, check="component-record"),
    recorded("component-options", "size: expected an integer", Mistyped),
    recorded("component-options", "came back as", Unequal),
    recorded("component-record", "'Odd'", NoOptions, "Odd"),
    Case("sampler", "component-methods", "what is built is of type NoneType", offered(None)),
    broken("component-methods", "its decoder is of type NoneType", Model,
           decoder=lambda self, size: None),
    broken("component-raises", "ZeroDivisionError", Sampler, close=lambda self: 1 / 0),
    broken("component-globals", "the random state of NumPy", Sampler,
           "component-raises", __init__=lambda self, context: np.random.seed(1)),
    broken("component-globals", "torch's threads, torch's default dtype", Sampler,
           "component-raises", __init__=change_torch),
    broken("component-globals", "left the thread", Sampler, "component-raises",
           __init__=lambda self, context: linger()),
    command("component-quiet", "it wrote 'built", lambda c, x: print("built") or good.command(c, x),
            check="command-build"),
    Case("sampler", "component-ends", f"had not ended after 0.5 s ({__file__}:",
         Component("endless", NoOptions, lambda config, context: endless),
         {"time_limit": 0.5}, check="sampler-shape"),
]  # fmt: skip

# Corpora.


class SeededCorpus(Corpus):
    """Would be taken for the text of another seed."""

    def __init__(self, context):
        self.seed = context.seed

    def sources(self):
        return [Path(__file__)]

    def read(self):
        yield f"The text of seed {self.seed}."


class OnceCorpus(Corpus):
    def __init__(self, context):
        self.pieces = iter(["the only", " text"])

    def read(self):
        return self.pieces


class OneReaderCorpus(Corpus):
    """Reads well, if one reader is done before the next begins."""

    place = 0

    def read(self):
        self.place = 0
        while self.place < 200:
            self.place += 1
            yield f"line {self.place}"


class CountingCorpus(Corpus):
    """Its text is the number of its readers."""

    readers = 0

    def read(self):
        self.readers += 1
        yield f"{self.readers}"
        self.readers -= 1


def unreadable(seen, read):
    """A corpus that cannot be read."""
    component = offered(type("Unreadable", (Corpus,), {"read": read}))
    return Case("corpus", "corpus-errors", seen, component, {"unreadable": {}})


CORPORA = [
    unreadable("the CorpusError says nothing", raising(CorpusError(""))),
    unreadable("it raised ZeroDivisionError", lambda self: 1 / 0),
    unreadable("raised nothing", Corpus.read),
    broken("corpus-pieces", "16,000,001", Corpus, read=lambda self: iter(["x" * 16_000_001])),
    broken("corpus-sources", "other files a second time", Corpus,
           sources=lambda self: [__file__] * (next(NUMBERS) % 2 + 1)),
    broken("corpus-readers", "while a first reader was not done", CountingCorpus),
    broken("corpus-pieces", "gave NoneType from read", Corpus, read=lambda self: None),
    broken("corpus-text", "no character", Corpus, read=lambda self: iter([""])),
    broken("corpus-sources", "'x.txt', no file", Corpus, sources=lambda self: ["x.txt"]),
    broken("corpus-text", "U+D83D", Corpus, read=lambda self: iter(["half: \ud83d"])),
    broken("corpus-again", "a second time", Corpus, read=lambda self: iter([f"{next(NUMBERS)}"])),
    broken("corpus-again", "no text a second time", OnceCorpus),
    broken("corpus-readers", "a reader got another text", OneReaderCorpus),
    broken("corpus-sources", "another text for another seed", SeededCorpus),
]  # fmt: skip

# Tokenizers.


def encode_known(self, text):
    return Tokenizer.encode(self, "".join(c for c in text if c in str(self.characters)))


def stumble(self, text):
    if any(c not in str(self.characters) for c in text):
        raise KeyError(text)
    return Tokenizer.encode(self, text)


def shuffled(self, pieces):
    letters = sorted(set("".join(pieces)))
    random.Random(next(NUMBERS)).shuffle(letters)
    self.characters = "".join(letters)


def learn_first(self, pieces):
    self.characters = "".join(sorted({piece[0] for piece in pieces if piece}))


def learn_for_all(self, pieces):
    type(self).characters = "".join(sorted(set("".join(pieces))))


def write_ids(self, ids):
    ids[ids < 0] = 0
    return Tokenizer.decode(self, ids)


def load_less(self, state):
    """Loses the last character."""
    return Tokenizer.from_dict(self, {"characters": state["characters"][:-1]})


class MarkTokenizer(Tokenizer):
    """Puts a mark at the beginning of every text, and so of every piece."""

    def encode(self, text):
        return np.concatenate([[1], super().encode(text)])

    def encode_pieces(self, pieces):
        return map(self.encode, pieces)

    def decode(self, ids):
        return super().decode(ids[1:])


class LosingTokenizer(Tokenizer):
    """Holds back what comes last, for ever."""

    def incremental_decoder(self):
        return SimpleNamespace(decode=lambda ids, final=False: "" if final else self.decode(ids))


class RacingTokenizer(Tokenizer):
    """Works on an attribute, and lets other threads run half-way."""

    def encode(self, text):
        self.ids: Any = []
        for place, character in enumerate(text):
            if place == len(text) // 2:
                time.sleep(0.0002)
            self.ids.append(str(self.characters).find(character) + 1)
        return np.array(self.ids, np.int64)


def end_with_first(self, pieces):
    EndTokenizer.fit(self, pieces)
    self.end_id = self.end_id and 1


class ShownEndTokenizer(EndTokenizer):
    def decode(self, ids):
        return "".join("<end>" if i == self.end_id else Tokenizer.decode(self, [i]) for i in ids)


TOKENIZERS = [
    broken("tokenizer-vocabulary", "unknown_id is 99", Tokenizer, unknown_id=99),
    broken("tokenizer-vocabulary", "vocab_size is 4 before fit()", Tokenizer,
           vocab_size=property(lambda self: len(self.characters or "abc") + 1)),
    broken("tokenizer-any-text", "it encodes to list", Tokenizer,
           encode=then(Tokenizer.encode, list)),
    broken("tokenizer-deterministic", "of a second tokenizer", Tokenizer,
           to_dict=lambda self: {"number": next(NUMBERS)}),
    broken("tokenizer-decode", "other text as uint8", Tokenizer,
           decode=lambda self, ids: Tokenizer.decode(self, ids[ids.dtype != np.int64 :])),
    broken("tokenizer-decode", "no ids decode to some text", Tokenizer,
           decode=then(Tokenizer.decode, lambda text: text or "?")),
    broken("tokenizer-saved", "what from_dict() gave", Tokenizer, from_dict=lambda self, state: 0),
    broken("tokenizer-apart", "when a second tokenizer was fitted", Tokenizer, fit=learn_for_all),
    broken("tokenizer-end", "came back as None", EndTokenizer, from_dict=Tokenizer.from_dict),
    broken("tokenizer-end", "vocab_size", EndTokenizer, vocab_size=Tokenizer.vocab_size),
    broken("tokenizer-end", "was encoded to its end_id, 1", EndTokenizer, fit=end_with_first),
    broken("tokenizer-fit", "in pieces of 7 characters", Tokenizer, fit=learn_first),
    broken("tokenizer-saved", "what JSON cannot", Tokenizer,
           to_dict=lambda self: {"characters": {self.characters}}),
    broken(
        "tokenizer-unknown", "nothing for '漢'", Tokenizer, unknown_id=None, encode=encode_known
    ),
    broken("tokenizer-unknown", "None, and '字' is encoded as '漢' is", Tokenizer, unknown_id=None),
    broken("tokenizer-apart", "while other threads encoded too", RacingTokenizer),
    broken("tokenizer-end", "decoded to '<end>'", ShownEndTokenizer),
    broken("tokenizer-fit", "left pieces unread", Tokenizer,
           fit=lambda self, pieces: setattr(self, "characters", "abc")),
    broken("tokenizer-vocabulary", "after fit()", Tokenizer, vocab_size=3.0),
    broken("tokenizer-any-text", "it encodes to ids from", Tokenizer,
           encode=lambda self, text: Tokenizer.encode(self, text) + self.vocab_size),
    broken("tokenizer-deterministic", "a second time", Tokenizer, fit=shuffled),
    broken("tokenizer-any-text", "raised KeyError", Tokenizer, encode=stumble),
    broken("tokenizer-decode", "decode() gave bytes", Tokenizer,
           decode=then(Tokenizer.decode, str.encode)),
    broken("component-raises", "read-only", Tokenizer, "tokenizer-decode", decode=write_ids),
    broken("tokenizer-round-trip", "which decodes to", Tokenizer,
           decode=then(Tokenizer.decode, lambda text: text.replace("e", "i"))),
    broken("tokenizer-pieces", "joined", MarkTokenizer),
    broken("tokenizer-stream", "at once", LosingTokenizer),
    broken("tokenizer-saved", "came back as", Tokenizer, from_dict=load_less),
    broken("tokenizer-saved", "encodes or decodes otherwise", Tokenizer,
           to_dict=lambda self: {"characters": "".join(reversed(str(self.characters)))}),
]  # fmt: skip

# Samplers.


def call(change):
    """A sampler's call that gives something else."""
    return {"__call__": lambda self, logits, history: change(logits)}


def write_logits(logits):
    logits[:, 0] -= 1
    return logits


def square_root(logits):
    with np.errstate(all="ignore"):
        return logits**0.5


def race(self, logits, history):
    self.logits = logits
    time.sleep(0)
    return self.logits * 0.5


def over_the_batch(logits):
    best = logits.max()
    return logits - (best if abs(float(best)) < 1e30 else 0)


def accept_all(self, tokens, logits, history):
    """Moves the state of every row by what all rows drew."""
    return {"seen": history.state["seen"] + [0, int(tokens.sum()) % 7]}


def accept_more(self, tokens, logits, history):
    return {"seen": np.concatenate([history.state["seen"], tokens[:, None]], axis=1)}


def accept_into(self, tokens, logits, history):
    history.state["seen"][:] += 1
    return history.state


SAMPLERS = [
    broken("sampler-torch", "other logits than an array", Sampler,
           **call(lambda x: x * (0.5 if isinstance(x, np.ndarray) else 0.25))),
    broken("component-raises", "the check sampler-device raised", Sampler, "sampler-device",
           **call(lambda x: x + np.ones(x.shape, "float32"))),
    broken("component-raises", "ZeroDivisionError", StateSampler, "sampler-state-form",
           start=lambda self, prompt: 1 / 0),
    broken("sampler-input", "accept wrote into", StateSampler, "sampler-state-form",
           accept=accept_into),
    broken("sampler-history", "history is 'all'", Sampler, history="all"),
    broken("sampler-state-form", "list from start", StateSampler, start=lambda self, prompt: [0]),
    broken("sampler-history", "that it reads counts", Sampler, __call__=lambda s, logits, history:
           logits * (0.5 if history.counts.any() else 1)),
    broken("sampler-shape", "came back as (", Sampler, **call(lambda logits: logits[:, :-1])),
    broken("sampler-shape", "float64, a ndarray on cpu", Sampler, **call(
           lambda x: x.astype(np.float64) if isinstance(x, np.ndarray) else x.double())),
    broken("sampler-input", "it wrote into the logits", Sampler, **call(write_logits)),
    broken("sampler-input", "wrote into history.lengths", Sampler,
           __call__=lambda s, logits, history: (history.lengths.fill(1), logits)[1]),
    broken("sampler-finite", "made NaN", Sampler, **call(square_root)),
    broken("sampler-deterministic", "a second time", Sampler,
           **call(lambda logits: logits * float(NOISE.uniform(0.5, 1)))),
    broken("sampler-possible", "every token of a row", Sampler, **call(lambda x: x - np.inf)),
    broken("sampler-forbidden", "came back possible", Sampler, **call(lambda x: x.clip(-100))),
    broken("sampler-rows", "alone than in the batch", Sampler, **call(over_the_batch)),
    broken("sampler-promise", "it left the tokens", Sampler, deterministic=True),
    broken("sampler-torch", "a Tensor on cpu came back as", Sampler,
           **call(lambda x: np.asarray(x) * np.asarray(x).dtype.type(0.5))),
    broken("sampler-device", "on meta came back as", Sampler, **call(lambda x: x.new_zeros(
           x.shape, device="cpu") if "meta" in str(getattr(x, "device", "")) else x)),
    broken("sampler-state-form", "'start' and no 'accept'", StateSampler, accept=None),
    broken("sampler-state-form", "from accept seen int64 (3, 3)", StateSampler, accept=accept_more),
    broken("sampler-state", "other logits than in a batch", StateSampler, accept=accept_all),
    broken("sampler-random", "that it reads random", StateSampler, "sampler-history",
           random=False),
    broken("sampler-random", "once other rows have other numbers", StateSampler,
           __call__=lambda self, logits, history: logits * (1 + float(history.random()[0, 0]))),
    broken("sampler-threads", "while other threads called too", Sampler, __call__=race),
]  # fmt: skip

# Strategies.


class Sampled(Sampling, Strategy):
    """Promises nothing."""

    draws_only = False


def remembering(self, lanes):
    """The same token once more for each text that came before."""
    self.count = getattr(self, "count", 0) + (not len(lanes.tokens[0]))
    return [(lanes.draw()[0] + self.count) % 30]


STRATEGIES = [
    broken("strategy-lanes", "is True", Strategy, lanes=True),
    broken("strategy-moves", "3 lanes, and announces 1 to 2", Strategy,
           step=lambda self, lanes: Moves([0] * 3, [()] * 3)),
    broken("strategy-moves", "40 tokens", Sampled, step=lambda self, lanes: Ranking([0])
           if len(lanes.tokens[0]) > 39 else Moves([0], [lanes.draw()])),
    broken("strategy-deterministic", "a second time", Sampled,
           pick=lambda self, lanes: [int(NOISE.integers(30))]),
    broken("strategy-rows", "in a batch", Sampled, "strategy-rows", pick=remembering),
    broken("strategy-streams", "as a stream", Sampled, pick=remembering),
    broken("strategy-sampling", "by sampling", Sampled, draws_only=True,
           pick=lambda self, lanes: [int(lanes.logits[0].argmin())]),
]  # fmt: skip

# Observers.


def observing(act):
    """An observer that does something else with every event."""
    return {"observe": lambda self, event: act(self, event)}


def keep_all(self, event):
    """Keep what was written after the step where the run resumes."""
    if not isinstance(event, RunStarted):
        Observer.observe(self, event)


def write_early(self, context):
    Observer.__init__(self, context)
    self.path.touch()


def number_file(self, context):
    Observer.__init__(self, context)
    self.path = self.path.with_name(f"{next(NUMBERS)}.txt")


class DividingObserver(Observer):
    steps = 0

    def observe(self, event):
        self.steps += isinstance(event, StepDone)
        if isinstance(event, RunFinished):
            self.path.write_text(str(1 / self.steps))


class SharedCountObserver(Observer):
    """Numbers its rows from the beginning of whichever run began last."""

    count = 0

    def observe(self, event):
        if isinstance(event, RunStarted):
            SharedCountObserver.count = event.step
        super().observe(event)

    def row(self, event):
        SharedCountObserver.count += 1
        return f"{event.step} {SharedCountObserver.count}\n"


def spoil(model):
    model.load_tensors({name: array * 2 for name, array in model.tensors().items()})


KNOWN = ("RunStarted", "StepDone", "Evaluation", "Checkpointed", "RunFinished")
OBSERVERS = [
    broken("observer-files", "build made seen.txt", Observer, __init__=write_early),
    broken("observer-apart", "beside another run [", Observer, __init__=number_file),
    broken("observer-run", "must return None or a Stop", Observer, **observing(lambda s, e: True)),
    broken("observer-files", "it changed run.json", Observer, **observing(
           lambda self, event: (self.path.parent / "run.json").write_text("{}") and None)),
    broken("observer-run", "of step 2) raised TypeError", Observer, **observing(lambda self, event:
           f"{event.validation_loss:.3f}" and None if isinstance(event, Evaluation) else None)),
    broken("observer-unknown", "observe(UnknownEvent", Observer,
           **observing(lambda self, event: [KNOWN.index(type(event).__name__)].clear())),
    broken("observer-failed", "raised ZeroDivisionError", DividingObserver),
    broken("observer-resumed", "has the line '6 0.5 692' twice", Observer, observe=keep_all),
    broken("observer-run", "with no console it wrote 'StepDone", Observer, **observing(
           lambda self, event: print(type(event).__name__) if type(event) is StepDone else None)),
    broken("observer-files", "seen.txt, outside the run directory", Observer,
           **observing(lambda self, event: Path("seen.txt").write_text("here") and None)),
    broken("observer-files", "checkpoints/x, a name that textgen", Observer, **observing(
           lambda self, event: (self.path.parent / "checkpoints/x").write_text("x") and None)),
    broken("observer-files", "elsewhere/tmp", Observer,
           **observing(lambda self, event: tempfile.mkstemp() and None)),
    broken("observer-run", "of event.model", Observer, **observing(
           lambda self, event: spoil(event.model) if isinstance(event, Evaluation) else None)),
    broken("component-globals", "left the thread", Observer, "observer-run",
           **observing(lambda self, event: linger())),
    broken("observer-apart", "came out otherwise than alone", SharedCountObserver),
]  # fmt: skip

# Commands.


def lenient(config, context):
    made = good.command(config, context)
    made.context_settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return made


def without_help(config, context):
    made = good.command(config, context)
    made.add_help_option = False
    return made


COMMANDS = [
    command("command-build", "build() gave NoneType", lambda c, x: None),
    command("command-help", "--help exits with 2", without_help),
    command("command-build", "fill in its option size", good.command, Required,
            check="component-record"),
    command("command-help", "its help text is empty", lambda c, x: click.Command("good")),
    command("command-usage", "exits with 0", lenient),
    command("command-runs", "as asked", good.command, arguments=["--fail"]),
]  # fmt: skip

# Runs.


def run(statement, seen, spoil):
    build = partial(good.finished_run, spoil=spoil)
    return Case("run", statement, seen, Component("good", NoOptions, build))


def edited(run, name, before, after):
    """Replace a word in a file, and the checksum of the file."""
    (run / name).write_text((run / name).read_text().replace(before, after))
    seal(run / name, run)


def as_unfinished(run):
    edited(run, "run.json", '"finished"', '"unfinished"')


def with_carriage_returns(run):
    path = run / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def of_another_plugin(run):
    for name in ("pipeline.toml", "run.json"):
        edited(run, name, '"ngram"', '"textgen-gone:odd"')


RUNS = [
    Case("run", "run-whole", "build() gave str", Component("good", NoOptions, lambda c, x: "run")),
    run("run-whole", "it has no run.json", lambda path: (path / "run.json").unlink()),
    run("run-whole", "its status is 'unfinished'", as_unfinished),
    run("run-whole", "tokenizer.json is damaged", with_carriage_returns),
    run("run-loads", "no model is called 'textgen-gone:odd'", of_another_plugin),
]

# What its check passes over, for the reason that is given, or passes if none is.


class LineTokenizer(Tokenizer):
    """Takes whole lines alone."""

    def encode(self, text):
        if not text.endswith("\n"):
            raise UsageError("this is no line")
        return super().encode(text)


refuse = raising(UsageError("not here"))


def need_held_out(self, model, data, context):
    if not len(data.validation):
        raise UsageError("it needs text that is held out")
    yield from Trainer.train(self, model, data, context)


PASSED = [
    broken("corpus-pieces", "", Corpus, read=lambda self: itertools.repeat("x" * 10_000_000)),
    broken("tokenizer-any-text", "", LineTokenizer),
    broken("tokenizer-end", "no end_id after documents", EndTokenizer, end_id=None,
           fit=lambda self, pieces: Tokenizer.fit(self, (p for p in pieces if type(p) is str))),
    broken("tokenizer-unknown", "it leaves out 'é'", Tokenizer,
           encode=lambda self, text: Tokenizer.encode(self, text.replace("é", ""))),
    broken("model-refuses", "it has no weights", Model, tensors=lambda self: {}),
    broken("trainer-validation", "with nothing held out", Trainer, train=need_held_out),
    broken("sampler-state", "end at once", StateSampler, **call(lambda logits: logits - np.inf)),
    broken("observer-run", "it refuses this run", Observer, __init__=refuse),
    command("command-runs", "", good.command, arguments=[]),
]  # fmt: skip

BROKEN = [
    *(*GENERAL, *CORPORA, *TOKENIZERS, *MODELS, *MODULES, *TRAINERS, *SAMPLERS),
    *(*STRATEGIES, *OBSERVERS, *COMMANDS, *RUNS),
]
