"""Stochastic gradient descent, as in Dive into Deep Learning."""

from __future__ import annotations

from typing import Any

from textgen import BuildContext, Component, hookimpl
from textgen.protocols import Trainer
from textgen_builtins.trainers.config import SGDConfig


def build(config: SGDConfig, context: BuildContext) -> Trainer:
    """A trainer around torch.optim.SGD."""
    import torch

    from textgen_builtins.trainers.gradient import GradientTrainer

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)

    return GradientTrainer(config, optimizer, learning_rate=lambda step, steps: config.learning_rate)


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `sgd`."""
    return [Component("sgd", SGDConfig, build)]
