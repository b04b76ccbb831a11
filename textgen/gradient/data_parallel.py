"""Losses and gradients of a batch, whose rows are shared out among the threads of a CPU and among
processes.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Final, Literal, Self, TypeVar

import attrs
import numpy as np
import torch
from torch import Tensor

from textgen.data import Ids
from textgen.errors import BrokenContract, UsageError
from textgen.gradient.batches import Batch
from textgen.gradient.objectives import NextToken, State
from textgen.processes import Processes
from textgen.protocols import Objective, TrainingContext
from textgen.threads import thread_count, worker_threads

_TRIED_AGAIN: Final = 50  # steps, of which the first three try the ways to share out
_Result = TypeVar("_Result")

_GLOBAL: Final = threading.Lock()  # held while torch's global generators are those of one training
_GAIN: Final = 0.9  # of the usual step's time, which one in one thread stays below


@attrs.frozen
class Gradients:
    """The results of a step beside the gradients of the parameters.

    loss   of the whole batch
    state  after its windows, of all rows; None where it is not kept
    now    the time that the first process was given
    """

    loss: Tensor
    state: State | None
    now: float


@attrs.define(eq=False)
class DataParallelStep:
    """A module, its replicas that share the parameters, and the thread of each.

    Gradients add up in a fixed order, so it does not matter to them in which threads they came.

    On a CPU each replica computes its rows with a single thread of torch's, and `run` makes whole
    steps in the first of these threads. Torch's own pool, whose threads all wait for the slowest
    several times in a step, takes no part: beside a program that keeps a core busy it is many times
    slower. On other devices there is one replica, and no thread.

    Among processes each computes its rows of every batch, and a sum over all of them carries
    gradients, loss, states and the first one's clock. Rows need not divide by the processes: each
    mean counts as its share of the batch. A process without any computes the first row for nothing.
    Integers of a state travel exactly up to 2^24.

    precision   "float32", or "bfloat16" for torch.autocast with weights in float32
    objective   what a batch sums, and by what number the sum is divided
    accumulate  number of parts in which each replica computes its rows, one after the other
    """

    replicas: list[Any]
    device: str
    objective: Objective = attrs.field(factory=NextToken)
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    _threads: Sequence[ThreadPoolExecutor] = ()
    _processes: Processes | None = None
    _group: Any = None  # of the processes, for tensors on the device
    _steps: int = attrs.field(default=0, init=False)
    _alone: float = attrs.field(default=0.0, init=False)  # seconds of a step in one thread
    _together: float = attrs.field(default=0.0, init=False)  # and side by side
    _parameters: list[list[Any]] = attrs.field(init=False)  # of each replica

    @_parameters.default
    def _all_parameters(self) -> list[list[Any]]:
        return [list(replica.parameters()) for replica in self.replicas]

    @classmethod
    def of(
        cls,
        model: Any,
        batch: Batch,
        context: TrainingContext,
        objective: Objective,
        accumulate: int = 1,
    ) -> Self:
        """A replica for each thread that torch would use, and each row of the parts of a batch.

        A model that replicas cannot stand in for computes alone, in one thread unless the run was
        given a number.
        """
        processes, is_cpu = context.processes, context.device == "cpu"
        rows = math.ceil(len(batch[0]) / accumulate)
        count = min(context.threads or thread_count(), rows) if is_cpu else 1
        draws = changes = False
        if count > 1 or processes is not None:
            draws, changes = _tried(model, batch, context.device, objective)
        replicas = [model]
        if count > 1 and not (draws or changes):
            with contextlib.suppress(RuntimeError, TypeError, NotImplementedError):  # of deepcopy
                replicas += [_replica_of(model) for _ in range(count - 1)]
        made = cls(replicas, context.device, objective, accumulate, processes=processes)
        if processes is not None:
            made._meet(processes, changes_buffers=changes)
        each = 1 if len(replicas) == count else context.threads or 1
        made._threads = worker_threads(len(replicas), each) if is_cpu else ()
        return made

    def _meet(self, processes: Processes, *, changes_buffers: bool) -> None:
        """Begin with the weights of the first process.

        Raises UsageError for what several cannot train as one would.
        """
        import torch.distributed as dist

        model, cause = self.replicas[0], ""
        if not getattr(model, "distributed", True):
            cause = "the model says that it cannot be trained in several processes"
        elif processes.size > 1 and changes_buffers:
            cause = (
                "the model changes its buffers in each step, as batch normalisation does, and "
                "needs all rows at once"
            )
        if cause:
            raise UsageError(f"{cause}; start fewer processes")
        with processes.explained(), torch.no_grad():
            self._group = processes.group("gloo" if self.device == "cpu" else "nccl")
            for tensor in itertools.chain(model.parameters(), model.buffers()):
                dist.broadcast(tensor, 0, group=self._group)

    def run(self, call: Callable[[], _Result]) -> _Result:
        """The result of `call()`, made where steps are computed: in the first replica's thread, if
        it has one.
        """
        return self._threads[0].submit(call).result() if self._threads else call()

    def shared_out(self, calls: Sequence[Callable[[], _Result]], *, step: bool) -> list[_Result]:
        """The results of a call for each replica, at most: the first made here, the others in their
        own threads, or here too where that is faster, as for small steps beside other programs,
        whose turns they wait for. Both are tried again and again.

        step   whether they are those of a step, whose time is taken
        """
        # The first step begins the threads, the second is timed side by side, the third alone.
        phase = self._steps % _TRIED_AGAIN if step else _TRIED_AGAIN
        is_faster_alone = self._alone < _GAIN * self._together
        is_alone = phase == 2 or (phase > 2 and is_faster_alone)
        begun = time.perf_counter()
        if is_alone or len(calls) == 1:
            results = [call() for call in calls]
        else:
            results = self._side_by_side(calls)
        seconds = time.perf_counter() - begun
        if phase == 1:
            self._together = seconds
        elif phase == 2:
            self._alone = seconds
        if step:
            self._steps += 1
        return results

    def _side_by_side(self, calls: Sequence[Callable[[], _Result]]) -> list[_Result]:
        others = [
            thread.submit(call) for thread, call in zip(self._threads[1:], calls[1:], strict=False)
        ]
        try:
            first = calls[0]()
        finally:
            wait(others)
        return [first, *(other.result() for other in others)]

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.shutdown()

    def gradients(
        self,
        batch: Batch,
        carried: State | None,
        seed: tuple[int, int],
        *,
        keeps_state: bool = False,
        now: float = 0.0,
    ) -> Gradients:
        """Set the gradients of the mean loss of a batch, read on from the states `carried` of all
        rows.

        To be called within `run`. It does not wait for the device. Raises ProcessesError.
        """
        for parameter in itertools.chain.from_iterable(self._parameters):
            parameter.grad = None
        total, processes = len(batch[0]), self._processes
        count = self.objective.count(batch)
        own = slice(0, total) if processes is None else processes.rows(total)
        own_count = own.stop - own.start
        # A process without rows computes the first one, which counts for nothing.
        computed = np.arange(own.start, own.stop) if own_count else np.arange(1)
        shares = np.array_split(computed, min(len(computed), len(self.replicas)))
        calls = [
            partial(self._rows, i, rows, batch, carried, seed, count if own_count else None)
            for i, rows in enumerate(shares)
        ]
        results = [part for parts in self.shared_out(calls, step=True) for part in parts]
        self._add_gradients(len(calls))
        loss = torch.stack([loss for loss, _ in results]).sum()
        parts = zip(*(after for _, after in results), strict=True) if keeps_state else ()
        state = tuple(map(torch.cat, parts))
        if processes is None:
            return Gradients(loss, state or None, now)
        whole = tuple(part.new_zeros((total, *part.shape[1:])) for part in state)
        for to, part in zip(whole, state, strict=True):
            to[own] = part[:own_count]
        return self._sum(loss, whole, now)

    def _sum(self, loss: Tensor, state: State, now: float) -> Gradients:
        """Set the gradients of all processes to their sums, and sum up what else they have.

        The numbers travel in one message, in the type that holds them all: on a CPU a message costs
        more than what it carries. On another device the facts of the processes travel apart, from
        CPU to CPU, where a process that was lost is an error; in a sum of NCCL, it ends this one.
        """
        import torch.distributed as dist

        processes = self._processes
        assert processes is not None
        parameters = [p for p in self._parameters[0] if p.requires_grad]
        is_used = [p.grad is not None for p in parameters]  # by a row of this process
        facts, header = [now if processes.leads else 0.0, *is_used], loss[None].float()
        on_cpu = self.device == "cpu"
        if on_cpu:
            header = torch.cat([header, torch.tensor(facts, dtype=torch.float32)])
        else:
            facts = processes.sums(*facts)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        sums = [header, *state, *(p.grad for p in parameters if p.grad is not None)]
        message = torch.cat([tensor.flatten() for tensor in sums])
        with processes.explained():
            dist.all_reduce(message, group=self._group)
        parts = torch.split(message, [tensor.numel() for tensor in sums])
        for to, part in zip(sums, parts, strict=True):
            to.copy_(part.view_as(to))
        now, *users = header[1:].tolist() if on_cpu else facts
        for parameter, count in zip(parameters, users, strict=True):
            if not count:
                parameter.grad = None  # a gradient of zero would let an optimizer decay it
        return Gradients(header[0], state or None, now)

    def mean(self, batches: Iterable[Batch], objective: Objective) -> float | None:
        """Mean of an objective over batches of held-out data; None if there are none. To be called
        within `run`. Raises ProcessesError.
        """
        sums, counts = 0.0, 0.0
        processes = self._processes
        if processes is not None:
            batches = itertools.islice(batches, processes.rank, None, processes.size)
        for batch in batches:
            parts = min(len(batch[0]), len(self.replicas))
            shared = zip(*(np.array_split(each, parts) for each in batch), strict=True)
            calls = [
                partial(self._measured, objective, model, part)
                for model, part in zip(self.replicas, shared, strict=False)
            ]
            sums += sum(self.shared_out(calls, step=False))
            counts += objective.count(batch)
        if processes is not None:
            sums, counts = processes.sums(sums, counts)
        return sums / counts if counts else None

    @torch.no_grad()
    def _measured(self, objective: Objective, model: Any, arrays: Batch) -> float:
        model.eval()
        return summed(objective, model, arrays, None, self.device)[0].item()

    def _rows(
        self,
        replica: int,
        rows: Ids,
        batch: Batch,
        carried: State | None,
        seed: tuple[int, int],
        count: int | None,
    ) -> list[tuple[Tensor, State]]:
        """Add the gradients of the loss of some rows (N,) of a batch to those of a replica, in
        parts; return the loss of each part, and the state after it.

        The loss of a part is its mean times its share of `count`, the predictions of the batch; 0
        if that is None.
        """
        model, total = self.replicas[replica], len(batch[0])
        results = []
        device_type = self.device.partition(":")[0]
        model.train()
        worker = replica  # among those of all processes
        if self._processes is not None:
            worker += self._processes.rank * len(self.replicas)
        for number, part in enumerate(np.array_split(rows, min(len(rows), self.accumulate))):
            part_rows = slice(int(part[0]), int(part[-1]) + 1)
            state = None if carried is None else tuple(array[part_rows] for array in carried)
            arrays = tuple(array[part_rows] for array in batch)
            part_count = self.objective.count(arrays)
            of_all = worker * self.accumulate + number
            with self._seeded(model, part_rows.start, total, of_all, seed):
                with torch.autocast(
                    device_type, torch.bfloat16, enabled=self.precision == "bfloat16"
                ):
                    sums, after = summed(self.objective, model, arrays, state, self.device)
                loss = sums / max(1, part_count)
                if part_count != count:
                    share = part_count / count if count else 0.0
                    loss = loss * share
                loss.backward()  # type: ignore[no-untyped-call]
            results.append((loss.detach(), tuple(array.detach() for array in after)))
        return results

    def _seeded(
        self, model: Any, first: int, total: int, part: int, seed: tuple[int, ...]
    ) -> contextlib.AbstractContextManager[None]:
        """A block in which dropout is seeded by the row, so that splitting a batch does not change
        it: the model computes the rows from `first` of a batch of `total`.

        A model without `set_rows` draws by the part of the batch instead, which has the number
        `part`.
        """
        if hasattr(model, "set_rows"):
            model.set_rows(first, total)
        elif part:
            seed = (*seed, part)
        # Another number than any other step's, and than the seed of the weights.
        digest = hashlib.blake2b(repr([*seed, 1]).encode(), digest_size=8).digest()
        number = int.from_bytes(digest) >> 1
        if hasattr(model, "set_dropout_seed"):
            model.set_dropout_seed(number)
        elif len(self.replicas) == 1:  # several are made only of what draws nothing
            return _seeded_globally(self.device, number)
        return contextlib.nullcontext()

    def _add_gradients(self, count: int) -> None:
        """Add to the first replica's gradients those of the others, of so many replicas."""
        for other in self._parameters[1:count]:
            for to, of in zip(self._parameters[0], other, strict=True):
                if of.grad is not None:  # a row of it used the parameter
                    to.grad = of.grad if to.grad is None else to.grad.add_(of.grad)


def _tried(model: Any, batch: Batch, device: str, objective: Objective) -> tuple[bool, bool]:
    """Whether a step draws from torch's global generator of the CPU, and whether it changes a
    buffer of the model.
    """
    draws_its_own = hasattr(model, "set_dropout_seed")
    if draws_its_own and not any(True for _ in model.buffers()):
        return False, False
    model.train()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with _seeded_globally(device, 0), torch.no_grad():
        before = torch.get_rng_state()
        summed(objective, model, tuple(each[:1] for each in batch), None, device)
        draws = not draws_its_own and not torch.equal(before, torch.get_rng_state())
        changes = [not torch.equal(model.get_buffer(name), kept) for name, kept in buffers.items()]
        for name, kept in buffers.items():
            model.get_buffer(name).copy_(kept)
    return draws, any(changes)


@contextlib.contextmanager
def _seeded_globally(device: str, seed: int) -> Iterator[None]:
    """Seed torch's global generators, of the CPU and of the device; put back what those of CPU and
    CUDA were.

    This is what makes `nn.Dropout` repeatable. Trainings in several threads take turns.
    """
    is_cuda = device.startswith("cuda")
    with _GLOBAL, torch.random.fork_rng([torch.device(device)] if is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device == "mps":
            torch.mps.manual_seed(seed)
        yield


def summed(
    objective: Objective, model: Any, arrays: Batch, carried: State | None, device: str
) -> tuple[Tensor, State]:
    """The sum that an objective gives for some rows, and the state after them."""
    made = objective.loss(model, tuple(_to_device(each, device) for each in arrays), carried)
    if isinstance(made, tuple) and len(made) == 2 and not getattr(made[0], "ndim", 1):
        return made[0], () if made[1] is None else made[1]
    cause = "must give from loss a sum, a tensor without axes, and the state after it"
    raise BrokenContract(objective, cause)


def _to_device(windows: Ids, device: str) -> Tensor:
    """Token ids on the device; the CPU does not wait for the copy."""
    tokens = torch.from_numpy(windows)
    return (
        tokens.pin_memory().to(device, non_blocking=True)
        if device.startswith("cuda")
        else tokens.to(device)
    )


def _replica_of(model: Any) -> Any:
    """A copy of a module that uses the very same parameters, with gradients of its own."""
    made = copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})
    with torch.no_grad():
        for own, shared in zip(made.parameters(), model.parameters(), strict=True):
            own.data = shared.data
    return made
