"""Losses and gradients of a batch that is shared out among the processes of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self

import attrs
import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from textgen.errors import UsageError
from textgen.gradient.computing import Computation, State, take_rows, training_loss
from textgen.processes import Order, Processes


@attrs.define(eq=False)
class DistributedComputation(Computation):
    """A module whose gradients are the sum over all processes, each of which computes its rows of every batch.

    Rows need not divide by the processes: each loss counts as its share of the batch. A process without any computes
    the first row for nothing, since all take part in the sum.
    """

    processes: Processes = attrs.field(kw_only=True)
    _group: Any = attrs.field(kw_only=True)

    @classmethod
    def among(cls, model: Any, device: str, precision: str, unused: bool, processes: Processes) -> Self:
        """All processes must call it. The leader's weights become those of all. Raises ProcessesError.

        unused  whether a step may leave parameters without a gradient
        """
        group = processes.group(device)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of a new name for broadcast_buffers
                loss = DistributedDataParallel(
                    _Loss(model),
                    process_group=group,
                    broadcast_buffers=False,  # tables that never change; batch norms are refused
                    gradient_as_bucket_view=True,
                    find_unused_parameters=unused,
                )
        except RuntimeError as error:
            raise _explained(error, processes) from error
        return cls([model], device, precision, loss=loss, processes=processes, group=group)

    def gradients(
        self, windows: npt.NDArray[np.int64], carried: list[State] | None, seed: tuple[int, int]
    ) -> tuple[Tensor, list[State]]:
        """As of one process, for the rows of this one; the loss is that of the whole batch (B, T + 1)."""
        rows, processes = self.processes.rows(len(windows)), self.processes
        count = rows.stop - rows.start
        model = self.replicas[0]
        for parameter in model.parameters():
            parameter.grad = None
        drawn = take_rows(model, rows.start, len(windows), processes.rank, seed)
        own = windows[rows] if count else windows[:1]
        share = count * processes.size / len(windows)  # the sum is divided by the number of processes
        try:
            loss, after = self._part(0, own, None if carried is None else carried[0], drawn, share)
            dist.all_reduce(loss, group=self._group)
        except RuntimeError as error:
            raise _explained(error, processes) from error
        processes.in_step = False
        return loss / processes.size, [after]

    def announce(self, horizon: int) -> None:
        """Tell the others to make a step; see Plan.horizon."""
        with self.processes.order(Order.STEP, horizon):
            self.processes.in_step = True

    def announce_evaluation(self) -> tuple[int, int | None, int]:
        """Tell the others to take part; which batches are this process's, as a slice."""
        if self.processes.leads:
            with self.processes.order(Order.EVALUATE):
                self.processes.in_step = True
        return self.processes.rank, None, self.processes.size

    def summed(self, total: Tensor, count: int) -> tuple[Tensor, int]:
        """The sum of the losses and their number, of all processes."""
        whole = self.processes.sum([float(total), count])
        self.processes.in_step = False
        return total.new_tensor(whole[0]), int(whole[1])

    def gathered(self, carried: list[State] | None, rows: int, *, last: bool = False) -> list[State] | None:
        """The carried states of all rows of a batch, in the leader. `last` sends the followers home."""
        if not self.processes.leads or (carried is None and not last):
            return carried
        with self.processes.order(Order.STOP if last else Order.STATE):
            return [tuple(self.processes.gather(carried[0], rows))] if carried is not None else None

    def follow(self, carried: list[State] | None, rows: int, evaluate: Callable[[], object]) -> int | None:
        """Wait until the leader announces a step, and return its horizon; None at the end."""
        while True:
            order, value = self.processes.next_order()
            if order == Order.STEP:
                return value
            if order == Order.EVALUATE:
                evaluate()
                continue
            if carried is not None:
                self.processes.gather(carried[0], rows)
            if order == Order.STOP:
                return None


class _Loss(nn.Module):
    """The loss as a module, since only calls of a module's `forward` are shared out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, windows: Tensor, carried: State | None) -> tuple[Tensor, State]:
        """See training_loss."""
        return training_loss(self.model, windows, carried)


def check(model: Any, device: str, batch_size: int, processes: Processes) -> None:
    """Raise UsageError for what several processes cannot train as one would."""
    if batch_size < processes.size:
        raise UsageError(
            f"{processes.size} processes cannot share out {batch_size} rows; raise trainer.batch_size or start fewer",
            argument="trainer.batch_size",
            value=batch_size,
        )
    if device == "mps":
        raise UsageError("several processes train on CPUs or on CUDA devices", argument="device", value=device)
    joined = [
        type(module).__name__ for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    if processes.size > 1 and (joined or not getattr(model, "distributed", True)):
        cause = f"it has a {joined[0]}, which needs all rows of a batch at once" if joined else "it says so itself"
        raise UsageError(f"the model cannot be trained in several processes: {cause}; start one")


def _explained(error: RuntimeError, processes: Processes) -> Exception:
    return processes.lost(error) if processes.is_lost(error) else error
