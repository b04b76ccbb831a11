"""A plugin set less some of its plugins, as `Engine.plugins(disable)` and a pipeline's `[plugins]` table ask for."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
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


def samplers(engine: textgen.Engine, *disable: str) -> set[str]:
    return {offer.qualified_name for offer in engine.plugins(disable).offers("sampler")}


@pytest.mark.parametrize("names", [["loud"], ["Textgen_Loud"], ["textgen-loud:loud"]])
def test_an_engine_with_a_set_leaves_out_what_is_disabled(names: list[str]) -> None:
    plugins = textgen.PluginSet()
    loud, quiet = module_with("loud"), module_with("quiet")
    plugins.register(loud, "loud", distribution="textgen-loud")
    plugins.register(quiet, "quiet", distribution="textgen-quiet")
    engine = textgen.Engine(plugins)
    assert engine.plugins() is plugins
    assert samplers(engine, *names) == {"textgen-quiet:quiet"}
    assert samplers(textgen.Engine(plugins, disable=names)) == {"textgen-quiet:quiet"}
    assert samplers(engine) == {"textgen-loud:loud", "textgen-quiet:quiet"}
    assert loud.calls == ["loud"]  # a hook is called once, however many sets there are


def test_a_pipeline_disables_plugins_of_a_given_set(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    engine = textgen.Engine(textgen.PluginSet.discover())
    tables = tiny_pipeline(plugins={"disable": ["sgd"]}, trainer={"type": "sgd", "epochs": 1})
    with pytest.raises(textgen.PipelineError, match=r"no trainer is called 'sgd'.*disabled: sgd"):
        engine.pipeline(tables)


def test_a_smaller_set_is_apart_from_the_one_it_was_made_from() -> None:
    plugins = textgen.PluginSet()
    module = module_with("loud")
    plugins.register(module, "loud")
    fewer = plugins.without(["nothing"])
    with pytest.warns(textgen.PluginWarning, match="it is the module of unpackaged:loud too"):
        fewer.register(module, "again")
    fewer.register(module_with("quiet"), "quiet")
    assert {offer.name for offer in fewer.offers()} == {"loud", "quiet"}
    assert {offer.name for offer in plugins.offers()} == {"loud"}
    assert plugins.quarantined == []
    again = plugins.without(["loud"])
    again.register(module, "again")  # the module is not taken there
    assert [offer.plugin.name for offer in again.offers()] == ["again"]


def test_what_is_quarantined_stays_so_and_warns_once() -> None:
    plugins = textgen.PluginSet()
    with pytest.warns(textgen.PluginWarning, match="offers nothing"):
        plugins.register(types.ModuleType("empty"), "empty")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [each.plugin.name for each in plugins.without(["other"]).quarantined] == ["empty"]
        assert plugins.without(["empty"]).quarantined == []


# How pluggy words what is wrong with a hook.


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
            r"plugin 'odd' \(textgen-odd 2\.1\) is left out: .*hookimpl definition: wanting\(config",
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
    with pytest.warns(textgen.PluginWarning, match=said) as warned:
        plugins.register(module, "odd", distribution="textgen-odd", version="2.1")
    assert "\n" not in str(warned[0].message)
    assert [offer.name for offer in plugins.offers()] == ["fine"]
