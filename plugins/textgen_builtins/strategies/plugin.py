"""The built-in strategies: how a text is made of steps."""

from __future__ import annotations

from textgen import Component, hookimpl
from textgen_builtins.lazy import lazily
from textgen_builtins.strategies import config as configs


@hookimpl
def textgen_strategies() -> list[Component]:
    """Offer the strategies."""
    return [
        Component("sample", configs.SampleConfig, lazily("strategies.sample")),
        Component("beam", configs.BeamConfig, lazily("strategies.beam")),
        Component("best-of", configs.BestOfConfig, lazily("strategies.best_of")),
        Component("guidance", configs.GuidanceConfig, lazily("strategies.guidance")),
        Component(
            "banned-phrases", configs.BannedPhrasesConfig, lazily("strategies.banned_phrases")
        ),
        Component("fill", configs.FillConfig, lazily("strategies.fill")),
    ]
