"""A plugin with the modules of networks.py as models."""

from __future__ import annotations

from typing import Any

import textgen
from textgen import BuildContext, Component, hookimpl


def build_attention(config: Any, context: BuildContext) -> Any:
    from networks import Attention

    return Attention(context.vocab_size)


def build_wrapped(config: Any, context: BuildContext) -> Any:
    import torch
    from networks import Recurrent

    from textgen.gradient import GradientModel

    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(context.seed)
        return GradientModel.of(Recurrent(context.vocab_size).to(context.device))


def build_dropping(config: Any, context: BuildContext) -> Any:
    from networks import Dropping

    from textgen.gradient import GradientModel

    return GradientModel.of(Dropping(context.vocab_size, context.seed).to(context.device))


@hookimpl
def textgen_models() -> list[Component]:
    """Offer both."""
    return [
        Component("attention", textgen.NoOptions, build_attention),
        Component("wrapped", textgen.NoOptions, build_wrapped),
    ]
