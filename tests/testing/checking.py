"""How the tests of textgen.testing check a component, and a plugin to check."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import attrs
import good
import numpy as np
from components import make
from good import GOOD

from textgen import Component, NoOptions, option, testing
from textgen.testing import STATEMENTS, isolated_plugins
from textgen.testing.environment import subject
from textgen.testing.plugin import SUITES
from textgen.testing.suite import run_checks

ROOT = Path(__file__).parents[2]
CHECKS = {kind: getattr(testing, f"check_{kind}") for kind in GOOD}
LIGHT = "textgen.plugin.component"  # what is imported for components that are made in this process
NOISE = np.random.default_rng()
PLUGINS = isolated_plugins()  # checks only look in it
SENTENCES = {statement.anchor: statement for statement in STATEMENTS}


def outcomes_of(kind, component, *, only="", time_limit=60.0, **arguments):
    """The outcomes of a component's checks, or of those of the statement `only` alone."""
    with subject(kind, component, None, LIGHT, PLUGINS, time_limit=time_limit) as made:
        checks = SUITES[kind](made, **arguments).checks()
        return list(run_checks([c for c in checks if only in ("", c.statement.anchor)], made))


@attrs.frozen
class Case:
    """A component that breaks the statement of this anchor, and words of what must be said to have
    been seen.

    check  the anchor of the check that finds it, if that is of another statement
    """

    kind: str
    statement: str
    seen: str
    component: Component
    arguments: dict[str, Any] = attrs.field(factory=dict)
    check: str = ""


def broken(statement, seen, base, check="", **changes):
    """A class that is `base` but for the attributes among `changes`."""
    kinds = {**good.KINDS, "model": (good.Model, good.Decoder)}
    kind = next(kind for kind, made in kinds.items() if issubclass(base, made))
    component = good.offered(type(base.__name__, (base,), changes))
    return Case(kind, statement, seen, component, check=check)


def module(statement, seen, change, check=""):
    """A torch module with another result of `forward`, while it trains."""

    def forward(self, tokens, state=None):
        return change(*super(type(self), self).forward(tokens, state))

    def build(config, context):
        model = make("model", "rnn", context, hidden_size=4, layers=2, dropout=0.3)
        if context.training:
            model.__class__ = type("Changed", (type(model),), {"forward": forward})
        return model

    return Case("model", statement, seen, Component("changed", NoOptions, build), check=check)


def then(method, change):
    """A method that gives something else."""
    return lambda *arguments: change(method(*arguments))


def raising(error):
    """A method that raises an error."""

    def method(*arguments):
        raise error

    return method


def command(statement, seen, build, config=NoOptions, check="", **more):
    return Case("command", statement, seen, Component("good", config, build), more, check)


PLUGIN = """
import attrs
from textgen import Component, NoOptions, hookimpl, option

@attrs.frozen
class NeedyConfig:
    "Needs an option."
    size: int = option(help="how many")

class Halve:
    history = "none"
    def __call__(self, logits, history):
        return logits * 0.5

class Watch:
    def observe(self, event):
        pass

@hookimpl
def textgen_samplers():
    return [Component(name, config, lambda config, context: Halve()) for name, config in
            (("halve", NoOptions), ("needy", NeedyConfig))]

@hookimpl
def textgen_observers():
    return [Component("watch", NoOptions, lambda config, context: Watch())]
"""


NUMBERS = itertools.count()


@attrs.frozen
class Required:
    """Needs an option."""

    size: int = option(help="how many")


def linger():
    """Outlive the check, though not the test."""
    threading.Thread(target=time.sleep, args=[1.5]).start()
