"""Components that break one statement of their contract each: a good one with an override."""

from __future__ import annotations

import itertools
import os
import signal
import warnings

import attrs
import good
import numpy as np
import torch
from broken_models import MODELS, MODULES, OBJECTIVES, TRAINERS
from broken_runs import COMMANDS, OBSERVERS, RUNS
from broken_samplers import SAMPLERS, STRATEGIES, call
from broken_texts import CORPORA, TOKENIZERS
from checking import NUMBERS, Case, broken, command, linger, raising
from good import (
    Corpus,
    EndTokenizer,
    Model,
    Observer,
    Sampler,
    StateSampler,
    Tokenizer,
    Trainer,
    offered,
)

from textgen import Component, NoOptions, UsageError, option

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
class Mistyped:
    """Has a default of another type."""

    size: int = option("three", help="how many")


@attrs.frozen(eq=False)
class Unequal:
    """Is like no other."""


def endless(logits, history):
    while True:
        logits = logits * 0.5


def change_process(self, context):
    os.environ["CHANGED"] = str(next(NUMBERS))
    warnings.simplefilter("once")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def change_torch(self, context):
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)


def recorded(statement, seen, config, name="odd", check=""):
    component = Component(name, config, lambda c, x: Sampler(x))
    return Case("sampler", statement, seen, component, check=check)


GENERAL = [
    recorded("component-record", "no help for size", Silent),
    recorded("component-record", "has no docstring", Undescribed),
    Case("observer", "component-record", "default=True means nothing",
         Component("odd", NoOptions, lambda c, x: good.Observer(x), default=True)),
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
    broken("component-globals", "the environment, the filters of warnings, the handlers", Sampler,
           "component-raises", __init__=change_process),
    broken("component-globals", "left the thread", Sampler, "component-raises",
           __init__=lambda self, context: linger()),
    command("component-quiet", "it wrote 'built", lambda c, x: print("built") or good.command(c, x),
            check="command-build"),
    Case("sampler", "component-ends", f"had not ended after 0.5 s ({__file__}:",
         Component("endless", NoOptions, lambda config, context: endless),
         {"time_limit": 0.5}, check="sampler-shape"),
]  # fmt: skip

# What its check passes over, for the reason that is given, or passes if none is.


class LineTokenizer(Tokenizer):
    """Takes whole lines alone."""

    def encode(self, text):
        if not text.endswith("\n"):
            raise UsageError("this is no line")
        return super().encode(text)


def need_held_out(self, model, data, context):
    if not len(data.validation):
        raise UsageError("it needs text that is held out")
    yield from Trainer.train(self, model, data, context)


refuse = raising(UsageError("not here"))


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
    *(*GENERAL, *CORPORA, *TOKENIZERS, *MODELS, *MODULES, *TRAINERS, *OBJECTIVES, *SAMPLERS),
    *(*STRATEGIES, *OBSERVERS, *COMMANDS, *RUNS),
]
