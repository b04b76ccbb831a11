"""How the tests of textgen.testing check a component, and a plugin to check."""

import itertools
from pathlib import Path
from typing import Any

import attrs
import good
import numpy as np
from components import make

from textgen import Component, NoOptions
from textgen.gradient import GradientModel
from textgen.testing import isolated_plugins
from textgen.testing.plugin import prepared

ROOT = Path(__file__).parents[2]
LIGHT = "textgen.plugin.component"  # what is imported for components that are made in this process
NOISE = np.random.default_rng()
NUMBERS = itertools.count()
PLUGINS = isolated_plugins()  # checks only look in it


def outcomes_of(kind, component, **given):
    """The outcomes of a component's checks, up to the first that fails."""
    with prepared(kind, component, plugin=LIGHT, plugins=PLUGINS, **given) as suite:
        return list(suite.outcomes())


@attrs.frozen
class Case:
    """A component that breaks the statement of this name, and what is wrong with it."""

    statement: str
    wrong: str
    kind: str
    component: Component
    given: dict[str, Any] = attrs.field(factory=dict)


def broken(statement, wrong, base, **changes):
    """A class that is `base` but for the attributes among `changes`."""
    kinds = {
        **good.KINDS,
        "model": (good.Model, good.Decoder, GradientModel),
        "strategy": (good.Strategy, good.Sampling),
    }
    kind = next(kind for kind, made in kinds.items() if issubclass(base, made))
    return Case(statement, wrong, kind, good.offered(type(base.__name__, (base,), changes)))


def module(statement, wrong, change):
    """A torch module with another result of `forward`, while it trains."""

    def forward(self, tokens, state=None):
        return change(*super(type(self), self).forward(tokens, state))

    def build(config, context):
        model = make("model", "rnn", context, hidden_size=4, layers=2, dropout=0.3)
        if context.training:
            model.__class__ = type("Changed", (type(model),), {"forward": forward})
        return model

    return Case(statement, wrong, "model", Component("changed", NoOptions, build))


def then(method, change):
    """A method that gives something else."""
    return lambda *arguments: change(method(*arguments))


def doing(act):
    """A method that does something and gives None."""
    return lambda *arguments: [act(*arguments)].clear()


def raising(error):
    """A method that raises an error."""

    def method(*arguments):
        raise error

    return method


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
