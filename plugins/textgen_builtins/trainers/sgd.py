"""Stochastic gradient descent, as the recipe of Dive into Deep Learning trains."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from attrs.validators import and_, ge, gt, lt, optional

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Trainer


@attrs.frozen(kw_only=True)
class GradientConfig:
    """What every trainer by gradient takes."""

    epochs: int = option(10, help="passes over the training data", validator=ge(1))
    batch_size: int = option(64, help="windows, or streams, per step", validator=ge(1))
    order: Literal["shuffled", "streams"] = option(
        "shuffled",
        help='"shuffled": windows in random order, each from the start state; "streams": batch_size places of the '
        "text read on side by side, the state carried from window to window",
    )
    gradient_clipping: Literal["norm", "normalize", "off"] = option(
        "norm",
        help='"norm" shrinks a gradient of a larger global norm to gradient_norm, as the book defines it; '
        '"normalize" always rescales to it, as the book\'s code did',
    )
    gradient_norm: float = option(1.0, help="the global norm for gradient_clipping", validator=gt(0))
    evaluate_every: int | None = option(
        None, help="steps between evaluations; once an epoch if not set", validator=optional(ge(1))
    )
    validation_batches: int | None = option(
        None, help="validate on the first batches only, so many", validator=optional(ge(1))
    )


@attrs.frozen(kw_only=True)
class SGDConfig(GradientConfig):
    """Stochastic gradient descent with momentum and gradient clipping.

    Dive into Deep Learning, sections "Optimization Algorithms" and "Recurrent Neural Networks".
    """

    learning_rate: float = option(1.0, help="size of a step", validator=gt(0))
    momentum: float = option(0.0, help="share of the last step kept", validator=and_(ge(0), lt(1)))


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
