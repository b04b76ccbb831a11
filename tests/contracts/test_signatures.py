"""What is declared with other arguments than it is called with is found before a run, and says what is expected."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen import Component, NoOptions, hookimpl
from textgen.events import Evaluation

Make = Callable[..., dict[str, Any]]
START = "plugin 'odd' (textgen-odd 2.1): "


def engine(kind: str, build: Any) -> textgen.Engine:
    """The built-in set and textgen-odd, whose one component `odd` is built so. A broken plugin raises."""

    def offer() -> list[Component]:
        return [Component("odd", NoOptions, build)]

    offer.__name__ = f"textgen_{kind}s"
    plugins = textgen.PluginSet.discover()
    module = types.SimpleNamespace(**{offer.__name__: hookimpl(offer)})
    plugins.register(module, "odd", distribution="textgen-odd", version="2.1")
    return textgen.Engine(plugins)


def run_with(kind: str, made: Any, tables: dict[str, Any], tmp_path: Path) -> textgen.Run:
    odd: Any = [{"type": "odd"}] if kind in ("sampler", "observer") else {"type": "odd"}
    return engine(kind, lambda config, context: made).run(
        {**tables, kind: odd}, output=tmp_path / "run"
    )


@pytest.mark.parametrize(
    ("build", "takes"),
    [
        (lambda config: None, "(config)"),
        (lambda: None, "()"),
        (lambda config, context, more: None, "(config, context, more)"),
    ],
)
def test_a_build_of_other_arguments_is_refused_with_the_plugin(build: Any, takes: str) -> None:
    with pytest.raises(textgen.PluginError) as caught:
        engine("sampler", build)
    said = f"textgen_samplers: component 'odd': build takes {takes}, and is called with (config, context)"
    assert str(caught.value) == START + said


class Deaf:
    """An observer that is not told what happened."""

    def observe(self) -> None:
        pass


class Trainer:
    """A trainer without the context."""

    def train(self, model: Any, data: Any) -> Any:
        yield

    def state(self) -> Any:
        pass

    def load_state(self, state: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "made", "said"),
    [
        (
            "sampler",
            lambda logits: logits,
            "has a method '__call__' that takes (logits), and is called with (logits, history)",
        ),
        ("observer", Deaf(), "has a method 'observe' that takes (), and is called with (event)"),
        (
            "trainer",
            Trainer(),
            "has a method 'train' that takes (model, data), and is called with (model, data, context)",
        ),
    ],
)
def test_a_method_of_other_arguments_is_named_with_those_expected(
    kind: str, made: Any, said: str, tiny_pipeline: Make, tmp_path: Path
) -> None:
    with pytest.raises(textgen.ContractError) as caught:
        run_with(kind, made, tiny_pipeline(), tmp_path)
    assert str(caught.value) == f"{START}{kind} 'odd' cannot be used: what `build` made {said}"


def test_what_can_be_called_is_called(tiny_pipeline: Make, tmp_path: Path) -> None:
    """Names and defaults are the author's, and a decorator may bring arguments of its own."""

    def with_more(function: Any) -> Any:
        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            return function("more", *arguments)

        return call

    seen = []

    class Named:
        def observe(self, happened: Any, _when: str = "now") -> None:
            seen.append(happened)

    run_with(
        "sampler", with_more(lambda more, these, _: these), tiny_pipeline(), tmp_path / "first"
    )
    run_with("observer", Named(), tiny_pipeline(), tmp_path / "second")
    assert any(isinstance(event, Evaluation) for event in seen)
