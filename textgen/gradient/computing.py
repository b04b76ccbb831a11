"""Losses and gradients of a batch, whose rows are shared out among threads of a CPU."""

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
from functools import partial
from typing import Any, Final, Self, TypeAlias, TypeVar

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgen.devices import worker_threads
from textgen.files.opening import UNFORESEEN
from textgen.gradient.optimization import StateError
from textgen.protocols import TrainingContext

logger = logging.getLogger("textgen")
State: TypeAlias = tuple[Tensor, ...]
_Result = TypeVar("_Result")

_GLOBAL: Final = threading.Lock()  # held while torch's global generators are those of one training
_TRIALS: Final = 5  # steps of each precision, at most, of which the fastest counts
_TRYING: Final = 1.0  # seconds after which no third step of each is tried
_GAIN: Final = 0.9  # of a float32 step's time, which one in bfloat16 must stay below to be taken


@attrs.define(eq=False)
class Computation:
    """A module, its replicas that share the parameters, and the thread of each. Gradients add up in a fixed order.

    On a CPU each replica computes its rows with a single thread of torch's, and `run` makes whole steps in the first
    of these threads. Torch's own pool, whose threads all wait for the slowest several times in a step, takes no part:
    beside a program that keeps a core busy it is many times slower. On other devices there is one replica, and no thread.

    precision  "float32", or "bfloat16" for torch.autocast with weights in float32
    """

    replicas: list[Any]
    device: str
    precision: str = "float32"
    _threads: Sequence[ThreadPoolExecutor] = ()
    _parameters: list[list[Any]] = attrs.field(init=False)  # of each replica

    @_parameters.default
    def _all_parameters(self) -> list[list[Any]]:
        return [list(replica.parameters()) for replica in self.replicas]

    @classmethod
    def of(cls, model: Any, windows: npt.NDArray[np.int64], context: TrainingContext) -> Self:
        """A replica for each thread that torch would use and each row of `windows` (B, T + 1), the batch.

        A model that replicas cannot stand in for computes alone, in one thread unless the run was given a number.
        """
        if context.device != "cpu":
            return cls([model], context.device)
        count = min(context.threads or torch.get_num_threads(), len(windows))
        if count > 1 and (reason := _needs_one(model, windows)):
            logger.info("the model computes in %d threads: %s", context.threads or 1, reason)
            return cls([model], "cpu", "float32", worker_threads(1, context.threads or 1))
        replicas = [model, *(replica_of(model) for _ in range(count - 1))]
        return cls(replicas, "cpu", "float32", worker_threads(count))

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

        On CUDA, bfloat16 where the GPU has it built in.
        """
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

    def gradients(
        self, windows: npt.NDArray[np.int64], carried: list[State] | None, seed: tuple[int, int]
    ) -> tuple[Tensor, list[State]]:
        """Set the gradients of the mean loss of windows (B, T + 1); return it, and the states after them.

        `carried` is a state for each replica. To be called within `run`. Nothing waits for the device.
        """
        for parameter in itertools.chain.from_iterable(self._parameters):
            parameter.grad = None
        total, first = len(windows), 0
        calls = []
        for i, part in enumerate(np.array_split(windows, min(total, len(self.replicas)))):
            drawn = take_rows(self.replicas[i], first, total, i, seed)
            state = None if carried is None else carried[i]
            calls.append(partial(self._part, i, part, state, drawn, len(part) / total))
            first += len(part)
        results = self.side_by_side(calls)
        self._add_gradients(len(calls))
        return torch.stack([loss for loss, _ in results]).sum(), [after for _, after in results]

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

    def announce(self, horizon: int) -> None:
        """Nobody has to know of a step."""

    def announce_evaluation(self) -> tuple[int, int | None, int]:
        """Nobody has to know; which batches are this process's, as a slice: all of them."""
        return 0, None, 1

    def summed(self, total: Tensor, count: int) -> tuple[Tensor, int]:
        """The sum of the losses and their number, of all processes."""
        return total, count

    def gathered(
        self, carried: list[State] | None, rows: int, *, last: bool = False
    ) -> list[State] | None:
        """The carried states: all of them are here."""
        return carried

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
