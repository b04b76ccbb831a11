"""An option of requests that several samplers take: the last of the run's chain that has it gets it."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import attrs
import pytest

import textgen
from textgen import Component, hookimpl, option

Make = Callable[..., dict[str, Any]]


def engine(**arguments: str) -> textgen.Engine:
    """The built-in set, and a package for each name: its sampler of that name leaves one token, by this argument."""
    plugins = textgen.PluginSet.discover()
    for name, argument in arguments.items():
        body = {
            "__annotations__": {"token": int},
            "__doc__": "Leaves one token possible.",
            "token": option(3, help="which one", argument=argument),
            "__call__": leave_one,
        }
        component = Component(
            name, attrs.frozen(type("Only", (), body)), lambda config, context: config
        )

        @hookimpl
        def textgen_samplers(component: Component = component) -> list[Component]:
            return [component]

        module = types.SimpleNamespace(textgen_samplers=textgen_samplers)
        plugins.register(module, name, distribution=f"textgen-{name}", version="1.0")
    return textgen.Engine(plugins)


def leave_one(self: Any, logits: Any, history: Any) -> Any:
    kept = logits - float("inf")
    kept[:, self.token] = 0.0
    return kept


def tokens(
    engine: textgen.Engine, chain: list[str], tiny_pipeline: Make, **sampling: Any
) -> set[int]:
    """Which tokens a run with this chain writes with the options given."""
    run = engine.run(tiny_pipeline(sampler=[{"type": name} for name in chain]))
    return set(run.generator.generate("the ", max_new_tokens=8, **sampling).tokens)


def test_the_chains_own_sampler_gets_an_option_that_a_built_in_has_too(tiny_pipeline: Make) -> None:
    assert tokens(engine(only="top_k"), ["only"], tiny_pipeline, top_k=5) == {5}
    assert (
        len(tokens(engine(only="top_k"), [], tiny_pipeline, top_k=5)) > 1
    )  # the built-in one joins


def test_of_two_plugins_the_chains_own_sampler_gets_it(tiny_pipeline: Make) -> None:
    both = engine(only="that_token", one="that_token")
    assert tokens(both, ["one"], tiny_pipeline, that_token=5) == {5}
    with pytest.raises(
        textgen.UsageError,
        match=r"that_token: several samplers take this option: textgen-one:one and textgen-only:only$",
    ):
        tokens(both, [], tiny_pipeline, that_token=5)


def test_of_two_in_the_chain_the_last_gets_it(tiny_pipeline: Make) -> None:
    both = engine(only="that_token", one="that_token")
    assert tokens(both, ["one", "only"], tiny_pipeline, that_token=5) == {5}
    assert tokens(engine(only="top_k"), ["only", "top-k"], tiny_pipeline, top_k=5) == {3}
