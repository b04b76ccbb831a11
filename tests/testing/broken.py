"""Components that break one statement of their contract each: a good one with an override. Those of
the other modules are among them.
"""

import itertools

import attrs
import good
import numpy as np
from broken_models import MODELS, MODULES
from broken_runs import COMMANDS, OBSERVERS, RUNS
from broken_samplers import SAMPLERS, STRATEGIES, call
from broken_texts import CORPORA, TOKENIZERS
from broken_trainers import OBJECTIVES, TRAINERS
from checking import Case, broken, raising
from good import (
    Corpus,
    EndTokenizer,
    Model,
    Objective,
    Sampler,
    StateSampler,
    Tokenizer,
    Trainer,
    offered,
)

from textgen import Component, NoOptions, UsageError, option


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
class Mistyped:
    """Has a default of another type."""

    size: int = option("three", help="how many")


def endless(logits, history):
    while True:
        logits = logits * 0.5


def recorded(wrong, config):
    component = Component("odd", config, lambda c, x: Sampler(x))
    return Case("component-record", wrong, "sampler", component)


GENERAL = [
    recorded("no help", Silent),
    recorded("no docstring", Undescribed),
    recorded("not frozen", Changing),
    recorded("a default of another type", Mistyped),
    Case("component-record", "default=True", "observer",
         Component("odd", NoOptions, lambda c, x: good.Observer(x), default=True)),
    Case("component-methods", "None", "sampler", offered(None)),
    broken("component-raises", "close", Sampler, close=lambda self: 1 / 0),
    Case("component-ends", "never ends", "sampler",
         Component("endless", NoOptions, lambda config, context: endless), {"time_limit": 0.5}),
]  # fmt: skip

BROKEN = [
    *(*GENERAL, *CORPORA, *TOKENIZERS, *MODELS, *MODULES, *TRAINERS, *OBJECTIVES, *SAMPLERS),
    *(*STRATEGIES, *OBSERVERS, *COMMANDS, *RUNS),
]


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


def shuffled_alone(self, data, options, seed):
    if options.order != "shuffled":
        raise UsageError("this order of windows is the objective's own")
    return Objective.batches(self, data, options, seed)


refuse = raising(UsageError("not here"))

PASSED = [
    broken("corpus-pieces", "", Corpus, read=lambda self: itertools.repeat("x" * 10_000_000)),
    broken("tokenizer-any-text", "", LineTokenizer),
    broken("tokenizer-end", "no end_id after documents", EndTokenizer, end_id=None,
           fit=lambda self, pieces: Tokenizer.fit(self, (p for p in pieces if type(p) is str))),
    broken("tokenizer-unknown", "it leaves out 'é'", Tokenizer,
           encode=lambda self, text: Tokenizer.encode(self, text.replace("é", ""))),
    broken("model-refuses", "it has no weights", Model, tensors=lambda self: {},
           load_tensors=lambda self, tensors: None, __init__=lambda self, context:
           setattr(self, "weights", np.eye(context.vocab_size))),
    broken("objective-batches", "", Objective, batches=shuffled_alone),
    broken("trainer-validation", "with nothing held out", Trainer, train=need_held_out),
    broken("sampler-texts", "", StateSampler, **call(lambda logits: logits - float("inf"))),
]  # fmt: skip
