"""The objective that a step of training sums: the cross-entropy of the next token, unless a plugin
says else.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from textgen.data import Dataset
from textgen.gradient.batches import Batch, Batches, training_batches
from textgen.gradient.options import GradientOptions

State: TypeAlias = tuple[Tensor, ...]


class NextToken:
    """textgen.protocols.Objective: the cross-entropy of each token after those before it, in
    windows of the text.

    A base for others, which override what differs.
    """

    def batches(self, data: Dataset, options: GradientOptions, seed: int) -> Batches:
        """The windows, (B, T + 1) int64, along streams or shuffled."""
        return training_batches(options, data.training_windows(), seed)

    def count(self, batch: Batch) -> int:
        """The number of targets."""
        return batch[0].size - len(batch[0])

    def loss(self, model: Any, batch: tuple[Tensor, ...], state: State | None) -> Any:
        """The sum of their cross-entropies in nats, by the model's own `token_losses` if it has
        one, and the state after.
        """
        tokens, targets = batch[0][:, :-1], batch[0][:, 1:]
        if hasattr(model, "token_losses"):
            losses, after = model.token_losses(tokens, targets, state)
            return losses.sum(), after
        logits, after = model(tokens, state)
        return cross_entropy(logits, targets), after


@attrs.frozen
class HeldOut(NextToken):
    """The same of held-out windows (B, T + 1), of which only so many targets at the end of each row
    count (B,), see `textgen.data.side_by_side`.

    context  the largest number of tokens that a model reads at once
    """

    context: int

    def count(self, batch: Batch) -> int:
        """The number of targets that count."""
        return int(batch[1].sum())

    def loss(self, model: Any, batch: tuple[Tensor, ...], state: State | None) -> Any:
        """The sum of their cross-entropies in nats, in float64, and the state after."""
        (tokens, counts), total = batch, torch.zeros((), dtype=torch.float64)
        length = tokens.shape[1] - 1
        for start in range(0, length, self.context):
            stop = min(start + self.context, length)
            targets = tokens[:, start + 1 : stop + 1]
            losses, state = token_losses(model, tokens[:, start:stop], targets, state)
            counted = torch.arange(start, stop) >= length - counts.cpu()[:, None]
            total += losses.cpu().double()[counted].sum()
        return total, state


def token_losses(
    model: Any, tokens: Tensor, targets: Tensor, carried: State | None
) -> tuple[Tensor, State]:
    """The cross-entropy (B, T) of each of the targets (B, T), by the model's own `token_losses` if
    it has one, and the state after.
    """
    if hasattr(model, "token_losses"):
        own: tuple[Tensor, State] = model.token_losses(tokens, targets, carried)
        return own
    logits, after = model(tokens, carried)
    return F.cross_entropy(logits.transpose(1, 2).float(), targets, reduction="none"), after


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of logits (B, T, V) for targets (B, T), in float32."""
    if logits.transpose(0, 1).is_contiguous():  # time is first in memory: flattening copies nothing
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    flat = logits.reshape(-1, logits.shape[-1])
    loss: Tensor = _CrossEntropy.apply(flat, targets.reshape(-1, 1))  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """torch's, whose gradient takes the place of the log probabilities: a pass over memory less,
    and an allocation.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """logits (N, V) and targets (N, 1) to the sum."""
        log_probabilities = torch.log_softmax(logits, 1, dtype=torch.float32)
        ctx.save_for_backward(log_probabilities, targets)
        ctx.dtype = logits.dtype
        return -log_probabilities.gather(1, targets).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """softmax - one-hot."""
        log_probabilities, targets = ctx.saved_tensors
        made = log_probabilities.exp_().mul_(gradient)
        return made.scatter_add_(1, targets, -gradient.expand_as(targets)).to(ctx.dtype), None
