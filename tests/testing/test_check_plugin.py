"""`check_plugin` and the statements it checks, as a plugin author meets them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from broken import Required
from checking import LIGHT, PLUGIN, ROOT
from good import GOOD, Sampler

from textgen import Component, hookimpl, testing
from textgen.errors import PipelineError, PluginError, UsageError


def test_the_sampler_of_the_page_of_hooks_keeps_its_contract() -> None:
    page = (ROOT / "docs/hooks.md").read_text(encoding="utf-8")
    block = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    names: dict[str, Any] = {"__name__": "page_of_hooks"}
    exec(block, names)
    (component,) = names["Plugin"].textgen_samplers()
    testing.check_sampler(component, plugin=LIGHT)


@pytest.mark.slow
def test_check_plugin_checks_all_that_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_of_three.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    unchecked = r"'needy' of plugin_of_three was not checked: .* needy\.size\. .*leave_out=\["
    with pytest.raises(UsageError, match=unchecked):
        testing.check_plugin("plugin_of_three")
    outcomes = testing.check_plugin("plugin_of_three", leave_out=["needy"])
    checked = {o.component.split()[1] for o in outcomes if o.status == "ok"}
    assert checked == {"'halve'", "'watch'"}
    given = testing.check_plugin("plugin_of_three", options={"needy": {"size": 3}})
    assert {o.component.split()[1] for o in given if o.status == "ok"} == checked | {"'needy'"}
    with pytest.raises(
        UsageError, match=r"'neady', and no component is called so; did you mean 'needy'\?"
    ):
        testing.check_plugin("plugin_of_three", options={"neady": {"size": 3}})
    with pytest.raises(
        UsageError,
        match=r"leave_out has 'neady', and no component is called so; did you mean 'needy'",
    ):
        testing.check_plugin("plugin_of_three", leave_out=["neady"])
    with pytest.raises(
        PipelineError,
        match=r"(?s)'needy' of plugin_of_three: 2 faults\n.*sise: unknown key; did you mean",
    ):
        testing.check_plugin("plugin_of_three", options={"needy": {"sise": 3}})


def test_a_list_is_no_component() -> None:
    with pytest.raises(TypeError, match=r"takes a textgen.Component, and got a list"):
        testing.check_sampler([GOOD["sampler"]], plugin=LIGHT)  # type: ignore[arg-type]


def test_options_that_do_not_fit_are_the_callers_fault() -> None:
    needy = Component("needy", Required, lambda config, context: Sampler(context))
    with pytest.raises(PipelineError, match="size: expected an integer"):
        testing.check_sampler(needy, options={"size": "many"}, plugin=LIGHT)
    with pytest.raises(PipelineError, match="size: required"):
        testing.check_sampler(needy, plugin=LIGHT)


@pytest.mark.slow
def test_check_plugin_takes_names_and_refuses_what_is_none() -> None:
    assert {o.component for o in testing.check_plugin("textgen_builtins.observers.plugin")} == {
        f"observer {name!r} of textgen-engine"
        for name in ("early-stopping", "loss-plot", "metrics", "progress", "samples")
    }
    with pytest.raises(PluginError, match=r"no hook in it, marked with @textgen.hookimpl"):
        testing.check_plugin(type("Unmarked", (), {"textgen_samplers": staticmethod(list)}))
    with pytest.raises(UsageError, match=r"offers no component, so there is nothing to check"):
        testing.check_plugin(Empty())


class Empty:
    """A plugin that offers nothing."""

    @staticmethod
    @hookimpl
    def textgen_samplers() -> list[Component]:
        return []
