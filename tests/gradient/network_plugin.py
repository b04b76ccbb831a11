"""A plugin with modules of networks.py as models."""

from __future__ import annotations

from typing import Any

from textgen import BuildContext, Component, NoOptions, hookimpl


def build_attention(config: Any, context: BuildContext) -> Any:
    from networks import Attention

    return Attention(context.vocab_size)


def build_dropping(config: Any, context: BuildContext) -> Any:
    from networks import Dropping

    from textgen.gradient import GradientModel

    return GradientModel.of(Dropping(context.vocab_size, context.seed).to(context.device))


@hookimpl
def textgen_models() -> list[Component]:
    """Offer both."""
    return [
        Component("attention", NoOptions, build_attention),
        Component("dropping", NoOptions, build_dropping),
    ]
