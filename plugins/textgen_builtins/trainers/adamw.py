"""AdamW with a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textgen import BuildContext, Component, hookimpl
from textgen.gradient import warmup_stable_decay
from textgen.protocols import Trainer
from textgen_builtins.trainers.config import AdamWConfig

if TYPE_CHECKING:
    import torch


def build(config: AdamWConfig, context: BuildContext) -> Trainer:
    """A trainer around torch.optim.AdamW. Biases and other vectors do not decay."""
    import torch

    from textgen.gradient import GradientTrainer, Parameters, eager

    def optimizer(parameters: Parameters) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": parameters.of_role("embedding", "matrix", "head")},
            {"params": parameters.of_role("vector"), "weight_decay": 0.0},
        ]
        kind = eager(torch.optim.AdamW)
        if config.average_share:
            kind = averaged(kind, config.average_share)
        made: torch.optim.Optimizer = kind(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=context.device.startswith(("cpu", "cuda")),
        )
        return made

    schedule = warmup_stable_decay(warmup=config.warmup_steps, decay=config.decay_share)
    return GradientTrainer(config, optimizer, schedule, context.build(config.objective))


def averaged(kind: type[torch.optim.AdamW], share: float) -> type[torch.optim.AdamW]:
    """A subclass of an optimizer whose `eval` puts the mean of the weights of all steps in their
    place, where step t weighs as t to the power of 1 / share - 1 (Shamir and Zhang, 2013).

    Nothing depends on the number of steps to come.
    """
    import torch

    class Averaged(kind):  # type: ignore[misc, valid-type]
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            for parameter, state in self.state.items():
                mean = state.setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter, 1 / (1 + share * (state["step"] - 1)))

        @torch.no_grad()
        def eval(self) -> None:
            for parameter, state in self.state.items():
                parameter.copy_(state["mean"])

        def train(self) -> None: ...  # the loop puts the weights back

    return Averaged


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `adamw`."""
    return [Component("adamw", AdamWConfig, build)]
