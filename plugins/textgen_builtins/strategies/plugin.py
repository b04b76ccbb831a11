"""The built-in strategies: how a text is made of steps."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from textgen import BuildContext, Component, hookimpl
from textgen_builtins.strategies import config as configs


def _builder(module: str) -> Any:
    """A `build` that calls that of a module, which is imported only then."""

    def build(config: Any, context: BuildContext) -> Any:
        return import_module(f"textgen_builtins.strategies.{module}").build(config, context)

    return build


@hookimpl
def textgen_strategies() -> list[Component]:
    """Offer the strategies."""
    return [
        Component("sample", configs.SampleConfig, _builder("sample")),
        Component("beam", configs.BeamConfig, _builder("beam")),
        Component("best-of", configs.BestOfConfig, _builder("best_of")),
        Component("guidance", configs.GuidanceConfig, _builder("guidance")),
        Component("banned-phrases", configs.BannedPhrasesConfig, _builder("banned_phrases")),
        Component("fill", configs.FillConfig, _builder("fill")),
    ]
