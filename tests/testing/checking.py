"""How the tests of textgen.testing check a component, and a plugin to check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from broken_components import GOOD

from textgen import Component, testing
from textgen.plugin.component import Offer, Plugin
from textgen.testing import STATEMENTS, Outcome, isolated_plugins
from textgen.testing.plugin import check_offers

ROOT = Path(__file__).parents[2]
CHECKS: dict[str, Callable[..., Any]] = {kind: getattr(testing, f"check_{kind}") for kind in GOOD}
LIGHT = "textgen.plugin.component"  # what is imported for components that are made in this process
SENTENCES = {statement.anchor: statement for statement in STATEMENTS}


def changed_module(**changes: Any) -> Component:
    """A model whose torch module is good but for the methods among `changes`, while it trains."""
    rnn = isolated_plugins().find("model", "rnn")
    assert isinstance(rnn, Offer)
    made = attrs.make_class("Config", [], bases=(), frozen=True)
    made.__doc__ = "A module."

    def build(config: Any, context: Any) -> Any:
        model = rnn.component.build(
            rnn.component.config(hidden_size=4, layers=2, dropout=0.3), context
        )
        if context.training:
            model.__class__ = type("Changed", (type(model),), changes)
        return model

    return Component("changed", made, build)


def outcomes_of(
    kind: str, component: Component, announce: Callable[[str], object] = str
) -> list[Outcome]:
    offers = [Offer(kind, component, Plugin("under-test", "unpackaged", "0"))]
    return list(check_offers(offers, isolated_plugins(), {}, module=LIGHT, announce=announce))


def unchecked(kind: str, component: Component) -> set[str]:
    """The anchors of what was skipped."""
    return {
        o.statement.anchor
        for o in outcomes_of(kind, component)
        if o.statement and o.status == "skipped"
    }


def failed_and_skipped(kind: str, component: Component) -> tuple[list[tuple[str, str]], set[str]]:
    """What fails of a component, as anchor and what was seen, and the reasons for which other checks were skipped."""
    outcomes = outcomes_of(kind, component)
    failed = [
        (o.statement.anchor, o.reason) for o in outcomes if o.statement and o.status == "failed"
    ]
    return failed, {o.reason for o in outcomes if o.status == "skipped"}


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
