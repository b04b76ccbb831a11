"""Losses and gradients of a batch, whose rows are shared out among the threads of a CPU and among processes."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from functools import partial
from typing import Any, Final, Self, TypeAlias, TypeVar

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgen.devices import worker_threads
from textgen.errors import UsageError
from textgen.files.opening import UNFORESEEN
from textgen.gradient.optimization import StateError
from textgen.processes import Processes
from textgen.protocols import TrainingContext

logger = logging.getLogger("textgen")
State: TypeAlias = tuple[Tensor, ...]
_Result = TypeVar("_Result")

_GLOBAL: Final = threading.Lock()  # held while torch's global generators are those of one training
_TRIALS: Final = 5  # steps of each precision, at most, of which the fastest counts
_TRYING: Final = 1.0  # seconds after which no third step of each is tried
_GAIN: Final = 0.9  # of a float32 step's time, which one in bfloat16 must stay below to be taken
_LARGE: Final = 1 << 20  # numbers of a tensor that travels alone


@attrs.frozen
class Gradients:
    """What a step gives beside the gradients of the parameters.

    loss   of the whole batch
    state  after its windows, of all rows; None where it is not kept
    now    the time that the first process was given
    stops  whether a process asks for the end, so that the gradients are not to be used
    """

    loss: Tensor
    state: State | None
    now: float
    stops: bool = False


@attrs.define(eq=False)
class Computation:
    """A module, its replicas that share the parameters, and the thread of each. Gradients add up in a fixed order.

    On a CPU each replica computes its rows with a single thread of torch's, and `run` makes whole steps in the first
    of these threads. Torch's own pool, whose threads all wait for the slowest several times in a step, takes no part:
    beside a program that keeps a core busy it is many times slower. On other devices there is one replica, and no thread.

    Among processes each computes its rows of every batch, and a sum over all of them carries gradients, loss, states,
    the first one's clock and the wish to stop. Rows need not divide by the processes: each loss counts as its share of
    the batch. A process without any computes the first row for nothing.

    precision  "float32", or "bfloat16" for torch.autocast with weights in float32
    """

    replicas: list[Any]
    device: str
    precision: str = "float32"
    _threads: Sequence[ThreadPoolExecutor] = ()
    _processes: Processes | None = None
    _group: Any = None  # of the processes, for tensors on the device
    _parameters: list[list[Any]] = attrs.field(init=False)  # of each replica

    @_parameters.default
    def _all_parameters(self) -> list[list[Any]]:
        return [list(replica.parameters()) for replica in self.replicas]

    @classmethod
    def of(cls, model: Any, windows: npt.NDArray[np.int64], context: TrainingContext) -> Self:
        """A replica for each thread that torch would use and each row of `windows` (B, T + 1), the batch.

        A model that replicas cannot stand in for computes alone, in one thread unless the run was given a number.
        """
        replicas, threads = cls._replicas(model, windows, context)
        made = cls(replicas, context.device, threads=threads, processes=context.processes)
        if context.processes is not None:
            made._meet(context.processes, windows)
        return made

    @staticmethod
    def _replicas(
        model: Any, windows: npt.NDArray[np.int64], context: TrainingContext
    ) -> tuple[list[Any], Sequence[ThreadPoolExecutor]]:
        """The replicas, and their threads."""
        if context.device != "cpu":
            return [model], ()
        count = min(context.threads or torch.get_num_threads(), len(windows))
        if count > 1 and (reason := _needs_one(model, windows)):
            logger.info("the model computes in %d threads: %s", context.threads or 1, reason)
            return [model], worker_threads(1, context.threads or 1)
        replicas = [model, *(replica_of(model) for _ in range(count - 1))]
        return replicas, worker_threads(count)

    def _meet(self, processes: Processes, windows: npt.NDArray[np.int64]) -> None:
        """Begin with the weights of the first process. Raises UsageError for what several cannot train as one would."""
        import torch.distributed as dist

        model, cause = self.replicas[0], ""
        if len(windows) < processes.size:
            cause = f"{processes.size} processes cannot share out {len(windows)} rows; raise trainer.batch_size"
        elif self.device == "mps":
            cause = "several processes train on CPUs or on CUDA devices"
        elif not getattr(model, "distributed", True):
            cause = "the model says that it cannot be trained in several processes"
        elif processes.size > 1 and tried(model, windows, self.device)[1]:
            cause = "the model changes its buffers in each step, as batch normalisation does, and needs all rows at once"
        if cause:
            raise UsageError(f"{cause}; start fewer processes")
        processes.meet()
        with processes.explained(), torch.no_grad():
            if self.device != "cpu":
                timeout = timedelta(seconds=processes.timeout)
                self._group = dist.new_group(backend="nccl", timeout=timeout)
            for tensor in itertools.chain(model.parameters(), model.buffers()):
                dist.broadcast(tensor, 0, group=self._group)

    def run(self, call: Callable[[], _Result]) -> _Result:
        """What `call()` returns, made where steps are computed: in the first replica's thread, if it has one."""
        return self._threads[0].submit(call).result() if self._threads else call()

    def side_by_side(self, calls: Sequence[Callable[[], _Result]]) -> list[_Result]:
        """The results of a call for each replica, at most: the first made here, the others in their own threads."""
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

    def faster_precision(self, windows: npt.NDArray[np.int64]) -> str:
        """The faster of float32 and bfloat16 for a batch (B, T + 1), by a few steps of each without an update.

        On CUDA, bfloat16 where the GPU has it built in. Among processes, the first one tries its rows.
        """
        if self._processes is not None:
            return self._agreed_precision(windows)
        if self.device.startswith("cuda"):
            with torch.cuda.device(self.device):
                is_built_in = torch.cuda.is_bf16_supported(including_emulation=False)
            return "bfloat16" if is_built_in else "float32"
        if self.device != "cpu":
            return "float32"
        times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        begun, own = time.perf_counter(), self.precision
        try:
            with buffers_kept(self.replicas[0]):
                for trial in range(_TRIALS):
                    if trial > 1 and time.perf_counter() - begun > _TRYING:
                        break
                    for self.precision, taken in times.items():
                        start = time.perf_counter()
                        self.run(partial(self.gradients, windows, None, (0, 0)))
                        taken.append(time.perf_counter() - start)
        except RuntimeError:  # an operation of the model has no bfloat16 version
            return "float32"
        finally:
            self.precision = own
        return "bfloat16" if min(times["bfloat16"]) < _GAIN * min(times["float32"]) else "float32"

    def _agreed_precision(self, windows: npt.NDArray[np.int64]) -> str:
        import torch.distributed as dist

        assert self._processes is not None
        half = torch.zeros((), device=self.device)
        if self._processes.leads:
            own = windows[self._processes.rows(len(windows))]
            half += attrs.evolve(self, processes=None).faster_precision(own) == "bfloat16"
        with self._processes.explained():
            dist.broadcast(half, 0, group=self._group)
        return "bfloat16" if half else "float32"

    def gradients(
        self,
        windows: npt.NDArray[np.int64],
        carried: State | None,
        seed: tuple[int, int],
        *,
        keeps_state: bool = False,
        now: float = 0.0,
        leaves: bool = False,
    ) -> Gradients:
        """Set the gradients of the mean loss of windows (B, T + 1), read on from the states `carried` of all rows.

        `leaves` says that this process asks for the end. To be called within `run`. A single process does not wait for
        the device. Raises ProcessesError.
        """
        for parameter in itertools.chain.from_iterable(self._parameters):
            parameter.grad = None
        total, processes = len(windows), self._processes
        own = range(total) if processes is None else range(total)[processes.rows(total)]
        places = np.array_split(own or range(1), min(len(own) or 1, len(self.replicas)))
        before = 0 if processes is None else processes.rank * len(self.replicas)
        calls = []
        for i, rows in enumerate(places):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            drawn = take_rows(self.replicas[i], part.start, total, before + i, seed)
            state = None if carried is None else tuple(each[part] for each in carried)
            share = len(rows) / total if own else 0.0
            calls.append(partial(self._part, i, windows[part], state, drawn, share))
        results = self.side_by_side(calls)
        self._add_gradients(len(calls))
        loss = torch.stack([loss for loss, _ in results]).sum()
        parts = zip(*(after for _, after in results), strict=True) if keeps_state else ()
        state = tuple(map(torch.cat, parts))
        if processes is None:
            return Gradients(loss, state or None, now)
        whole = tuple(part.new_zeros((total, *part.shape[1:])) for part in state)
        for to, rows_state in zip(whole, state, strict=True):
            if own:
                to[own.start : own.stop] = rows_state
        return self._sum(loss, whole, now, leaves)

    def _sum(self, loss: Tensor, state: State, now: float, leaves: bool) -> Gradients:
        """Set the gradients of all processes to their sums, and sum up what else they have.

        Small tensors travel together, since on a CPU a message costs more than what it carries.
        """
        import torch.distributed as dist

        assert self._processes is not None
        parameters = [p for p in self._parameters[0] if p.requires_grad]
        first, stops = self._processes.leads, leaves or self._processes.is_stopping()
        facts = [now if first else 0.0, float(stops), *(p.grad is not None for p in parameters)]
        header = torch.cat([loss[None].float(), loss.new_tensor(facts, dtype=torch.float32)])
        for parameter in parameters:
            given = parameter.grad
            parameter.grad = torch.zeros_like(parameter) if given is None else given.contiguous()
        sums = [header, *state, *(p.grad for p in parameters if p.grad is not None)]
        large = [tensor for tensor in sums if tensor.numel() >= _LARGE]
        small = sorted((tensor for tensor in sums if tensor.numel() < _LARGE), key=_kind)
        with self._processes.explained():
            for tensor in large:
                dist.all_reduce(tensor, group=self._group)
            for _, same in itertools.groupby(small, _kind):
                group = list(same)
                flat = torch.cat([tensor.flatten() for tensor in group])
                dist.all_reduce(flat, group=self._group)
                parts = torch.split(flat, [tensor.numel() for tensor in group])
                for to, part in zip(group, parts, strict=True):
                    to.copy_(part.view_as(to))
            now, stopping, *users = header[1:].tolist()
        for parameter, used in zip(parameters, users, strict=True):
            parameter.grad = parameter.grad if used else None
        self._processes.stop_asked = stopping > 0 and not leaves
        return Gradients(header[0], state or None, now, stopping > 0)

    def summed(self, total: Tensor, count: int) -> tuple[float, int]:
        """The sums of losses and of their number over all processes."""
        if self._processes is None:
            return float(total), count
        import torch.distributed as dist

        both = torch.stack([total, torch.as_tensor(count).to(total)])
        with self._processes.explained():
            dist.all_reduce(both, group=self._group)
            return float(both[0]), int(both[1])

    def share(self) -> slice:
        """The batches of an evaluation that are this process's."""
        return (
            slice(None)
            if self._processes is None
            else slice(self._processes.rank, None, self._processes.size)
        )

    def _part(
        self,
        place: int,
        windows: npt.NDArray[np.int64],
        carried: State | None,
        seed: Iterable[int],
        share: float,
    ) -> tuple[Tensor, State]:
        """Gradients of some rows' loss, times their share of the batch."""
        model = self.replicas[place]
        model.train()
        with self._seeded(model, seed):
            tokens = to_device(windows, self.device)
            with self.autocast():
                loss, after = training_loss(model, tokens, carried)
            if share != 1:
                loss = loss * share
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), tuple(part.detach() for part in after)

    def _seeded(self, model: Any, seed: Iterable[int]) -> contextlib.AbstractContextManager[None]:
        """What the model draws within depends on the seed alone."""
        if hasattr(model, "set_dropout_seed"):
            model.set_dropout_seed(_mixed(seed))
            return contextlib.nullcontext()
        # Several replicas are made only of what draws nothing: they need not wait for each other.
        return (
            seeded_globally(self.device, _mixed(seed))
            if len(self.replicas) == 1
            else contextlib.nullcontext()
        )

    @torch.no_grad()
    def try_carried(self, carried: State, rows: int) -> None:
        """Raise StateError for a saved state that the model cannot read on from, in so many rows."""
        model, tokens = (
            self.replicas[0].eval(),
            torch.zeros((rows, 1), dtype=torch.long, device=self.device),
        )
        try:
            with self.autocast():
                model(tokens, carried)
        except (RuntimeError, *UNFORESEEN) as error:
            raise StateError(error) from error

    def autocast(self) -> Any:
        """The context of the precision."""
        return torch.autocast(
            self.device.partition(":")[0], torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    def _add_gradients(self, count: int) -> None:
        """To the first replica's gradients the second's and so on, of so many replicas."""
        first = self._parameters[0]
        for other in self._parameters[1:count]:
            given = [
                (to, of.grad) for to, of in zip(first, other, strict=True) if of.grad is not None
            ]
            for to, gradient in given:
                if to.grad is None:  # no row of those before used it
                    to.grad = torch.zeros_like(gradient)
            torch._foreach_add_([to.grad for to, _ in given], [gradient for _, gradient in given])


def _needs_one(model: Any, windows: npt.NDArray[np.int64]) -> str:
    """Why replicas side by side would not compute what the model does, by the loss of a row; empty if they would."""
    try:
        replica_of(model)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return f"it cannot be copied ({error})"
    draws, has_changed = tried(model, windows)
    if has_changed:
        return "it changes its buffers in each step, as batch normalisation does"
    if draws:
        return "it draws from torch's global generator, and would not with a set_dropout_seed"
    return ""


def tried(model: Any, windows: npt.NDArray[np.int64], device: str = "cpu") -> tuple[bool, bool]:
    """Whether a step draws from torch's global generator of the CPU, and whether it changes a buffer of the model."""
    draws_its_own = hasattr(model, "set_dropout_seed")
    if draws_its_own and not any(True for _ in model.buffers()):
        return False, False
    model.train()
    with buffers_kept(model) as have_changed, seeded_globally(device, 0), torch.no_grad():
        before = torch.get_rng_state()
        training_loss(model, to_device(windows[:1], device), None)
        draws = not draws_its_own and not torch.equal(before, torch.get_rng_state())
        return draws, have_changed()


@contextlib.contextmanager
def buffers_kept(model: Any) -> Iterator[Callable[[], bool]]:
    """Put back what trial steps change of a model's buffers; gives whether they have changed any."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield lambda: any(
            not torch.equal(model.get_buffer(name), kept) for name, kept in before.items()
        )
    finally:
        with torch.no_grad():
            for name, kept in before.items():
                model.get_buffer(name).copy_(kept)


@contextlib.contextmanager
def seeded_globally(device: str, seed: int) -> Iterator[None]:
    """Seed torch's global generators, of the CPU and of the device, and put back what they were.

    This is what makes `nn.Dropout` repeatable. Trainings in several threads take turns.
    """
    is_cuda = device.startswith("cuda")
    own: Any = torch.cuda if is_cuda else torch.mps if device == "mps" else None
    with _GLOBAL, torch.cuda.device(device) if is_cuda else contextlib.nullcontext():
        before, before_own = torch.get_rng_state(), own and own.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)
            if own is not None:
                own.manual_seed(seed)
            yield
        finally:
            torch.set_rng_state(before)
            if own is not None:
                own.set_rng_state(before_own)


def take_rows(
    model: Any, first: int, total: int, place: int, seed: tuple[int, int]
) -> tuple[int, ...]:
    """The seed of a step's dropout, for the rows from `first` of a batch of `total`, computed in this place of several.

    A model with `set_rows` takes its part of the whole batch's dropout, so that the places make no difference.
    """
    if hasattr(model, "set_rows"):
        model.set_rows(first, total)
        return seed
    return (*seed, place) if place else seed


def training_loss(model: Any, windows: Tensor, carried: State | None) -> tuple[Tensor, State]:
    """The mean loss of windows (B, T + 1), by the model's own `training_loss` if it has one, and the state after."""
    if hasattr(model, "training_loss"):
        own: tuple[Tensor, State] = model.training_loss(windows[:, :-1], windows[:, 1:], carried)
        return own
    logits, after = model(windows[:, :-1], carried)
    return cross_entropy(logits, windows[:, 1:]), after


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, T, V) for targets (B, T), in float32."""
    if logits.transpose(
        0, 1
    ).is_contiguous():  # time is first in memory: flattening in that order copies nothing
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    flat = logits.reshape(-1, logits.shape[-1])
    loss: Tensor = _CrossEntropy.apply(flat, targets.reshape(-1, 1))  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """torch's, whose gradient takes the place of the log probabilities: a pass over memory less, and an allocation."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """logits (N, V) and targets (N, 1) to the mean loss."""
        log_probabilities = torch.log_softmax(logits, 1, dtype=torch.float32)
        ctx.save_for_backward(log_probabilities, targets)
        ctx.dtype = logits.dtype
        return -log_probabilities.gather(1, targets).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """(softmax - one-hot) / N."""
        log_probabilities, targets = ctx.saved_tensors
        share = gradient / len(targets)
        made = log_probabilities.exp_().mul_(share)
        return made.scatter_add_(1, targets, -share.expand_as(targets)).to(ctx.dtype), None


def to_device(windows: npt.NDArray[np.int64], device: str) -> Tensor:
    """Token ids on the device; the CPU does not wait for the copy."""
    tokens = torch.from_numpy(windows)
    return (
        tokens.pin_memory().to(device, non_blocking=True)
        if device.startswith("cuda")
        else tokens.to(device)
    )


def replica_of(model: Any) -> Any:
    """A copy of a module that uses the very same parameters, with gradients of its own."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for own, shared in zip(made.parameters(), model.parameters(), strict=True):
            own.data = shared.data
    return made


def _mixed(seed: Iterable[int]) -> int:
    """A seed for one step that differs from every other step's, and from the seed of the weights."""
    return int.from_bytes(hashlib.blake2b(repr([*seed, 1]).encode(), digest_size=8).digest()) >> 1


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype)
