"""The built-in samplers: links of the chain that logits pass before the draw."""

from __future__ import annotations

from functools import partial

from textgen import Component, hookimpl
from textgen_builtins.lazy import lazily
from textgen_builtins.samplers import config as configs


@hookimpl
def textgen_samplers() -> list[Component]:
    """Offer the samplers, in their usual order."""
    links = partial(lazily, "samplers.links")
    return [
        Component("penalties", configs.PenaltiesConfig, links("penalties"), order=10),
        Component("dry", configs.DryConfig, lazily("samplers.repetition", "dry"), order=13),
        Component("logit-bias", configs.LogitBiasConfig, links("logit_bias"), order=20),
        Component("format", configs.FormatConfig, lazily("samplers.format"), order=25),
        Component("top-k", configs.TopKConfig, links("top_k"), order=40),
        Component("top-p", configs.TopPConfig, links("top_p"), order=60),
        Component("min-p", configs.MinPConfig, links("min_p"), order=70),
        Component("xtc", configs.XtcConfig, links("xtc"), order=75),
        Component("temperature", configs.TemperatureConfig, links("temperature"), order=80),
        Component(
            "greedy",
            configs.GreedyConfig,
            links("greedy"),
            order=90,
            replaced_by=("temperature",),
        ),
    ]
