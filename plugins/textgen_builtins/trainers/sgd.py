"""Stochastic gradient descent, as in Dive into Deep Learning."""

from __future__ import annotations

from textgen import BuildContext, Component, hookimpl
from textgen.protocols import Trainer
from textgen_builtins.trainers.config import SGDConfig


def build(config: SGDConfig, context: BuildContext) -> Trainer:
    """A trainer around torch.optim.SGD."""
    import torch

    from textgen.gradient import GradientTrainer, eager

    return GradientTrainer(
        config,
        lambda parameters: eager(torch.optim.SGD)(
            parameters, lr=config.learning_rate, momentum=config.momentum
        ),
        objective=context.build(config.objective),
    )


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `sgd`."""
    return [Component("sgd", SGDConfig, build)]
