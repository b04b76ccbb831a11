"""AdamW with a schedule."""

from __future__ import annotations

from typing import Any

from textgen import BuildContext, Component, hookimpl
from textgen.gradient import warmup_stable_decay
from textgen.protocols import Trainer
from textgen_builtins.trainers.config import AdamWConfig


def build(config: AdamWConfig, context: BuildContext) -> Trainer:
    """A trainer around torch.optim.AdamW. Biases and other vectors do not decay."""
    import torch

    from textgen.gradient import GradientTrainer, Parameters, eager

    def optimizer(parameters: Parameters) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": parameters.of_role("embedding", "matrix", "head")},
            {"params": parameters.of_role("vector"), "weight_decay": 0.0},
        ]
        made: torch.optim.Optimizer = eager(torch.optim.AdamW)(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=context.device.startswith(("cpu", "cuda")),
        )
        return made

    schedule = warmup_stable_decay(warmup=config.warmup_steps, decay=config.decay_share)
    return GradientTrainer(config, optimizer, schedule, context.build(config.objective))


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `adamw`."""
    return [Component("adamw", AdamWConfig, build)]
