"""The built-in samplers: links of the chain that logits pass before the draw."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from textgen import BuildContext, Component, hookimpl
from textgen_builtins.samplers import config as configs


def _builder(name: str, module: str = "links") -> Any:
    """A `build` that calls a function of the implementation, which is imported only then."""

    def build(config: Any, context: BuildContext) -> Any:
        return getattr(import_module(f"textgen_builtins.samplers.{module}"), name)(config, context)

    return build


@hookimpl
def textgen_samplers() -> list[Component]:
    """Offer the samplers, in their usual order."""
    return [
        Component("penalties", configs.PenaltiesConfig, _builder("penalties"), place=10),
        Component("dry", configs.DryConfig, _builder("dry", "repetition"), place=13),
        Component("logit-bias", configs.LogitBiasConfig, _builder("logit_bias"), place=20),
        Component("format", configs.FormatConfig, _builder("build", "format"), place=25),
        Component("top-k", configs.TopKConfig, _builder("top_k"), place=40),
        Component("top-p", configs.TopPConfig, _builder("top_p"), place=60),
        Component("min-p", configs.MinPConfig, _builder("min_p"), place=70),
        Component("xtc", configs.XtcConfig, _builder("xtc"), place=75),
        Component("temperature", configs.TemperatureConfig, _builder("temperature"), place=80),
        Component(
            "greedy",
            configs.GreedyConfig,
            _builder("greedy"),
            place=90,
            replaced_by=("temperature",),
        ),
    ]
