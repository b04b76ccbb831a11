"""Losses and gradients of a batch: in one go, or its rows shared out among worker threads; and how to choose."""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgen.devices import worker_threads
from textgen.files.opening import UNFORESEEN
from textgen.gradient.optimization import StateError
from textgen.protocols import TrainingContext

State: TypeAlias = tuple[Tensor, ...]
_Result = TypeVar("_Result")

_TURNS, _TRIALS = 2, 4  # turns of each of several ways to compute, and steps in a turn, which decide between them
_GLOBAL: Final = threading.Lock()  # held while torch's global generators are those of one training
_TRYING: Final = 0.5  # seconds for each way after which none is tried again: on a busy machine, two steps must do
_CLOSE: Final = 1.1
_HOPELESS: Final = 10  # times as long, after which a way is not tried again


@attrs.define(eq=False)
class Computation:
    """A module, its replicas that share the parameters, and the thread of each. Gradients add up in a fixed order.

    A replica computes its rows with one thread of torch's own, and `run` makes whole steps in the first of these
    threads: torch's pool of threads, all of which have to wait for the slowest several times in a step, is never used.
    That keeps the pace when other programs need the cores too.
    """

    replicas: list[Any]
    device: str
    precision: str
    _threads: Sequence[ThreadPoolExecutor] = ()
    _loss: Callable[[Tensor, State | None], tuple[Tensor, State]] | None = None

    @classmethod
    def of(cls, model: Any, device: str, precision: str, workers: int) -> Computation:
        """`workers` replicas, the first of which is the module itself."""
        replicas = [model, *(_replica(model) for _ in range(workers - 1))]
        return cls(replicas, device, precision, worker_threads(workers) if workers > 1 else ())

    def run(self, call: Callable[[], _Result]) -> _Result:
        """What `call()` returns, made where steps are computed: in the first worker's thread, if there are any."""
        return self._threads[0].submit(call).result() if self._threads else call()

    def side_by_side(self, calls: Sequence[Callable[[], _Result]]) -> list[_Result]:
        """The results of a call for each replica, at most: the first made here, the others in their own threads."""
        others = [thread.submit(call) for thread, call in zip(self._threads[1:], calls[1:], strict=False)]
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
        self, windows: npt.NDArray[np.int64], carried: list[State] | None, seed: tuple[int, int]
    ) -> tuple[Tensor, list[State]]:
        """Set the gradients of the mean loss of windows (B, T + 1); return it, and the states after them.

        `carried` is a state for each replica. To be called within `run`. Nothing waits for the device.
        """
        for replica in self.replicas:
            for parameter in replica.parameters():
                parameter.grad = None
        total, first = len(windows), 0
        calls = []
        for i, part in enumerate(np.array_split(windows, len(self.replicas))):
            drawn = take_rows(self.replicas[i], first, total, i, seed)
            state = None if carried is None else carried[i]
            calls.append(partial(self._part, i, part, state, drawn, len(part) / total))
            first += len(part)
        results = self.side_by_side(calls)
        self._add_gradients()
        return torch.stack([loss for loss, _ in results]).sum(), [after for _, after in results]

    def _part(
        self, place: int, windows: npt.NDArray[np.int64], carried: State | None, seed: Iterable[int], share: float
    ) -> tuple[Tensor, State]:
        """Gradients of some rows' loss, times their share of the batch."""
        model = self.replicas[place]
        model.train()
        with self._seeded(model, seed):
            tokens = to_device(windows, self.device)
            with self.autocast():
                loss, after = self._loss(tokens, carried) if self._loss else training_loss(model, tokens, carried)
            if share != 1:
                loss = loss * share
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), tuple(part.detach() for part in after)

    def _seeded(self, model: Any, seed: Iterable[int]) -> contextlib.AbstractContextManager[None]:
        """What the model draws within depends on the seed alone."""
        if hasattr(model, "set_dropout_seed"):
            model.set_dropout_seed(_mixed(seed))
            return contextlib.nullcontext()
        # Several replicas are made only of what draws nothing, see `draws`: they need not wait for each other.
        return seeded_globally(self.device, _mixed(seed)) if len(self.replicas) == 1 else contextlib.nullcontext()

    @torch.no_grad()
    def try_carried(self, carried: State, rows: int) -> None:
        """Raise StateError for a saved state that the model cannot read on from, in so many rows."""
        model, tokens = self.replicas[0].eval(), torch.zeros((rows, 1), dtype=torch.long, device=self.device)
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

    def gathered(self, carried: list[State] | None, rows: int, *, last: bool = False) -> list[State] | None:
        """The carried states: all of them are here."""
        return carried

    def autocast(self) -> Any:
        """The context of the precision."""
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.precision == "bfloat16")

    def _add_gradients(self) -> None:
        """The first replica's gradients, plus the second's and so on."""
        columns = zip(*(replica.parameters() for replica in self.replicas), strict=True)
        given = [c for c in columns if c[0].grad is not None and all(p.grad is not None for p in c)]
        for i in range(1, len(self.replicas)):
            torch._foreach_add_([c[0].grad for c in given], [c[i].grad for c in given])


@contextlib.contextmanager
def seeded_globally(device: str, seed: int) -> Iterator[None]:
    """Seed torch's global generators, of the CPU and of the device, and put back what they were.

    This is what makes `nn.Dropout` repeatable. Trainings in several threads take turns.
    """
    generators = [torch.default_generator]
    kind, _, number = device.partition(":")
    if kind == "cuda":
        generators.append(torch.cuda.default_generators[int(number or torch.cuda.current_device())])
    elif kind == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    with _GLOBAL:
        before = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(seed)
            yield
        finally:
            for generator, state in zip(generators, before, strict=True):
                generator.set_state(state)


def take_rows(model: Any, first: int, total: int, place: int, seed: tuple[int, int]) -> tuple[int, ...]:
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
    if logits.transpose(0, 1).is_contiguous():  # time is first in memory: flattening in that order copies nothing
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
    return tokens.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tokens.to(device)


def most_workers(model: Any, windows: npt.NDArray[np.int64], context: TrainingContext) -> int:
    """One worker for each of torch's threads, or 1 where the device, the batch or the model allows no more."""
    most = min(torch.get_num_threads(), len(windows))
    if context.device != "cpu" or most < 2:
        return 1
    try:
        _replica(model)
    except (RuntimeError, TypeError, NotImplementedError):
        return 1
    return most


def choose_precision(model: Any, windows: npt.NDArray[np.int64], context: TrainingContext, workers: int) -> str:
    """The faster of float32 and bfloat16 on this device, by a few steps of so many workers without an update."""
    if context.device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    try:  # by the least of each: they differ in their arithmetic alone
        single, half = map(min, _times(model, windows, context, [("float32", workers), ("bfloat16", workers)]))
    except RuntimeError:  # an operation of the model has no bfloat16 version
        return "float32"
    return "bfloat16" if half < 0.9 * single else "float32"


def leaves_unused(model: Any, windows: npt.NDArray[np.int64], context: TrainingContext) -> bool:
    """Whether a step leaves parameters without a gradient, by that of a single window."""
    Computation.of(model, context.device, "float32", 1).gradients(windows[:1], None, (0, 0))
    return any(p.grad is None for p in model.parameters() if p.requires_grad)


def draws(model: Any, windows: npt.NDArray[np.int64], context: TrainingContext) -> bool:
    """Whether a step draws from torch's global generator, which threads would share; by that of a single window."""
    if hasattr(model, "set_dropout_seed"):
        return False
    states = []

    def loss(tokens: Tensor, carried: State | None) -> tuple[Tensor, State]:
        states.append(torch.default_generator.get_state())
        made = training_loss(model, tokens, carried)
        states.append(torch.default_generator.get_state())
        return made

    Computation([model], context.device, "float32", loss=loss).gradients(windows[:1], None, (0, 0))
    return not torch.equal(states[0], states[1])


def choose_workers(
    model: Any, windows: npt.NDArray[np.int64], context: TrainingContext, precision: str, most: int
) -> int:
    """The faster of `most` workers and torch's own threads, by a few steps without an update.

    Workers where it is close: they keep more of their pace when other programs need the cores.
    """
    if most == 1:
        return 1
    # By their means: they wait for other programs more or less, and a single step may be lucky.
    shared, alone = map(statistics.mean, _times(model, windows, context, [(precision, most), (precision, 1)]))
    return most if shared < _CLOSE * alone else 1


def _times(
    model: Any, windows: npt.NDArray[np.int64], context: TrainingContext, ways: Sequence[tuple[str, int]]
) -> list[list[float]]:
    """The seconds of some steps' gradients, for each of these precisions and numbers of workers.

    They take turns, since a machine's pace may change within a second. The first step of each turn, in which memory is
    allocated, does not count, unless it takes so much longer than the first way's steps that there is no question: on a
    busy machine, torch's own threads may wait for each other for many seconds.
    """
    times: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + _TRYING * len(ways)
    while len(times[-1]) < _TURNS * _TRIALS and time.perf_counter() < end:
        for (precision, workers), taken in zip(ways, times, strict=True):
            with contextlib.closing(Computation.of(model, context.device, precision, workers)) as computation:
                made, is_hopeless = _turn(computation, windows, _HOPELESS * times[0][0] if times[0] else math.inf)
            taken += made
            if is_hopeless:
                return times
    return times


def _turn(computation: Computation, windows: npt.NDArray[np.int64], hopeless: float) -> tuple[list[float], bool]:
    """The seconds of some steps, after one that does not count; of that one alone, and True, if it took `hopeless`."""
    first = _seconds(computation, windows)
    if first > hopeless:
        return [first], True
    made: list[float] = []
    end = time.perf_counter() + _TRYING - first
    while not made or (len(made) < _TRIALS and time.perf_counter() < end):
        made.append(_seconds(computation, windows))
    return made, False


def _seconds(computation: Computation, windows: npt.NDArray[np.int64]) -> float:
    """The time of one step's gradients."""
    begun = time.perf_counter()
    float(computation.run(partial(computation.gradients, windows, None, (0, 0)))[0])
    return time.perf_counter() - begun


def _replica(model: Any) -> Any:
    """A copy of a module that uses the very same parameters, with gradients of its own."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for own, shared in zip(made.parameters(), model.parameters(), strict=True):
            own.data = shared.data
    return made


def _mixed(seed: Iterable[int]) -> int:
    """A seed for one step that differs from every other step's, and from the seed of the weights."""
    return int(np.random.SeedSequence([*seed, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))
