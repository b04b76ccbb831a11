"""How pluggy words what is wrong with a hook."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen import Component, NoOptions, hookimpl


def module_with(name: str) -> Any:
    """A plugin with one sampler of this name, and a count of how often its hook was called."""
    calls: list[str] = []

    def textgen_samplers() -> list[Component]:
        calls.append(name)
        return [Component(name, NoOptions, lambda config, context: None)]

    return types.SimpleNamespace(textgen_samplers=hookimpl(textgen_samplers), calls=calls)


def wanting(config: Any) -> list[Component]:
    return []


def wrapping() -> list[Component]:
    return []


def keyword(*, config: Any) -> list[Component]:
    return []


def nothing() -> None:
    return None


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (
            hookimpl(wanting),
            r"plugin 'odd' \(textgen-odd 2\.1\): .*hookimpl definition: wanting\(config",
        ),
        (
            hookimpl(wanting),
            r"Argument\(s\) \{'config'\} are declared in the hookimpl but can not be found in the",
        ),
        (hookimpl(wrapping, wrapper=True), "but function is not a generator function"),
        (
            hookimpl(keyword),
            r"TypeError: keyword\(\) missing 1 required keyword-only argument: 'config'",
        ),
        (
            hookimpl(nothing),
            "textgen_samplers must return a list of Component records, and returned NoneType",
        ),
    ],
)
def test_an_unfit_hook_is_left_out_with_the_cause(hook: Any, said: str, tmp_path: Path) -> None:
    plugins = textgen.PluginSet()
    plugins.register(module_with("fine"), "fine")
    module = types.SimpleNamespace(textgen_samplers=hook)
    with pytest.raises(textgen.PluginError, match=said) as caught:
        plugins.register(module, "odd", distribution="textgen-odd", version="2.1")
    assert "\n" not in str(caught.value)
    assert [offer.name for offer in plugins.offers()] == ["fine"]
