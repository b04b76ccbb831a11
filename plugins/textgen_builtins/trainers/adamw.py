"""AdamW with warm-up and a cosine schedule."""

from __future__ import annotations

import math
from typing import Any

from textgen import BuildContext, Component, hookimpl
from textgen.protocols import Trainer
from textgen_builtins.trainers.config import AdamWConfig


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
