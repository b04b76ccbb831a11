"""AdamW with warm-up and a cosine schedule."""

from __future__ import annotations

import math
from typing import Any

import attrs
from attrs.validators import and_, ge, gt, le, lt

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Trainer
from textgen_builtins.trainers.sgd import GradientConfig


@attrs.frozen(kw_only=True)
class AdamWConfig(GradientConfig):
    """Adam with decoupled weight decay, warm-up and cosine decay.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019) and "SGDR" (2017).
    """

    learning_rate: float = option(2e-3, help="size of a step at its highest", validator=gt(0))
    weight_decay: float = option(0.01, help="share of a weight lost per step, times the rate", validator=ge(0))
    beta1: float = option(0.9, help="memory of the gradient's mean", validator=and_(ge(0), lt(1)))
    beta2: float = option(0.99, help="memory of the gradient's square", validator=and_(ge(0), lt(1)))
    warmup_steps: int = option(0, help="steps over which the rate rises from zero", validator=ge(0))
    final_rate: float = option(
        0.1, help="what the cosine ends at, as a share of learning_rate; 1 keeps the rate", validator=and_(ge(0), le(1))
    )


def build(config: AdamWConfig, context: BuildContext) -> Trainer:
    """A trainer around torch.optim.AdamW."""
    import torch

    from textgen_builtins.trainers.gradient import GradientTrainer

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=context.device.startswith(("cpu", "cuda")),
        )

    def learning_rate(step: int, steps: int) -> float:
        if step <= config.warmup_steps:
            return config.learning_rate * step / config.warmup_steps
        done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        share = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
        return config.learning_rate * share

    return GradientTrainer(config, optimizer, learning_rate)


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `adamw`."""
    return [Component("adamw", AdamWConfig, build)]
