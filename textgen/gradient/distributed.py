"""Losses and gradients of a batch that is shared out among the processes of a run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import attrs
import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from textgen.errors import UsageError
from textgen.gradient.computing import Computation, State, take_rows, tried
from textgen.processes import Order, Processes

_LARGE: Final = 1 << 20  # numbers of a tensor that travels alone


@attrs.define(eq=False)
class DistributedComputation(Computation):
    """A module whose gradients are the sum over all processes, each of which computes its rows of every batch.

    Rows need not divide by the processes: each loss counts as its share of the batch. A process without any computes
    the first row for nothing, since all take part in the sum.
    """

    processes: Processes = attrs.field(kw_only=True)
    _group: Any = attrs.field(kw_only=True)

    @classmethod
    def among(cls, model: Any, device: str, processes: Processes) -> Self:
        """All processes must call it. The leader's weights become those of all. Raises ProcessesError."""
        made = cls([model], device, processes=processes, group=processes.group(device))
        with made._explained(), torch.no_grad():
            for tensor in itertools.chain(model.parameters(), model.buffers()):
                dist.broadcast(tensor, 0, group=made._group)
        return made

    def gradients(
        self, windows: npt.NDArray[np.int64], carried: list[State] | None, seed: tuple[int, int]
    ) -> tuple[Tensor, list[State]]:
        """As of one process, for the rows of this one; the loss is that of the whole batch (B, T + 1)."""
        rows, processes = self.processes.rows(len(windows)), self.processes
        count = rows.stop - rows.start
        model = self.replicas[0]
        for parameter in self._parameters[0]:
            parameter.grad = None
        drawn = take_rows(model, rows.start, len(windows), processes.rank, seed)
        own = windows[rows] if count else windows[:1]
        with self._explained():
            loss, after = self._part(
                0, own, None if carried is None else carried[0], drawn, count / len(windows)
            )
            loss = self._sum(loss)
        processes.in_step = False
        return loss, [after]

    def _sum(self, loss: Tensor) -> Tensor:
        """Set the gradients of all processes to their sums, and return that of the losses.

        Small tensors travel together, since on a CPU a message costs more than what it carries.
        """
        parameters = [p for p in self._parameters[0] if p.requires_grad]
        used = loss.new_tensor([p.grad is not None for p in parameters])
        for parameter in parameters:
            given = parameter.grad
            parameter.grad = torch.zeros_like(parameter) if given is None else given.contiguous()
        total = loss.clone()
        sums = [total, used, *(p.grad for p in parameters if p.grad is not None)]
        for large in (tensor for tensor in sums if tensor.numel() >= _LARGE):
            dist.all_reduce(large, group=self._group)
        together = sorted((tensor for tensor in sums if tensor.numel() < _LARGE), key=_kind)
        for _, same in itertools.groupby(together, _kind):
            small = list(same)
            flat = torch.cat([tensor.flatten() for tensor in small])
            dist.all_reduce(flat, group=self._group)
            parts = torch.split(flat, [tensor.numel() for tensor in small])
            torch._foreach_copy_(
                small, [part.view_as(t) for t, part in zip(small, parts, strict=True)]
            )
        for parameter, users in zip(parameters, used.tolist(), strict=True):
            parameter.grad = parameter.grad if users else None
        return total

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """An error of torch that means that another process is lost says so."""
        try:
            yield
        except RuntimeError as error:
            raise (
                self.processes.lost(error) if self.processes.is_lost(error) else error
            ) from error

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

    def gathered(
        self, carried: list[State] | None, rows: int, *, last: bool = False
    ) -> list[State] | None:
        """The carried states of all rows of a batch, in the leader. `last` sends the followers home."""
        if not self.processes.leads or (carried is None and not last):
            return carried
        with self.processes.order(Order.STOP if last else Order.STATE):
            return [tuple(self.processes.gather(carried[0], rows))] if carried is not None else None

    def follow(
        self, carried: list[State] | None, rows: int, evaluate: Callable[[], object]
    ) -> int | None:
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


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype)


def check(
    model: Any,
    windows: npt.NDArray[np.int64],
    device: str,
    batch_size: int,
    processes: Processes,
) -> None:
    """Raise UsageError for what several processes cannot train as one would."""
    if batch_size < processes.size:
        raise UsageError(
            f"{processes.size} processes cannot share out {batch_size} rows; raise it or start fewer",
            argument="trainer.batch_size",
            value=batch_size,
        )
    if device == "mps":
        raise UsageError(
            "several processes train on CPUs or on CUDA devices", argument="device", value=device
        )
    cause = "" if getattr(model, "distributed", True) else "it says so itself"
    if not cause and processes.size > 1 and tried(model, windows, device)[1]:
        cause = "it changes its buffers in each step, as batch normalisation does"
    if cause:
        raise UsageError(f"the model cannot be trained in several processes: {cause}; start one")
