"""Which way to compute steps is the fastest here: tried on the first batch, without an update."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgen.errors import UsageError
from textgen.gradient.computing import TORCH, Computation, State, Way, replica_of, training_loss
from textgen.protocols import TrainingContext

_TURNS, _TRIALS = (
    2,
    4,
)  # turns of each of several ways to compute, and steps in a turn, which decide between them
_TRYING: Final = 0.5  # seconds for each way after which none is tried again: on a busy machine, two steps must do
_CLOSE: Final = 1.1
_HOPELESS: Final = 10  # times as long, after which a way is not tried again
_LONG: Final = 1.0  # seconds that a first step may take, since kernels may be compiled in it


def most_workers(model: Any, windows: npt.NDArray[np.int64], context: TrainingContext) -> int:
    """One worker for each of torch's threads, or 1 where the device, the batch or the model allows no more."""
    most = min(torch.get_num_threads(), len(windows))
    if context.device != "cpu" or most < 2:
        return 1
    try:
        replica_of(model)
    except (RuntimeError, TypeError, NotImplementedError):
        return 1
    return most


def kernels(model: Any, precision: str) -> list[str]:
    """The ways in which the model can compute a step in this precision: torch's, and what it offers beside it."""
    if not hasattr(model, "kernels"):
        return [TORCH]
    offered = model.kernels(precision)
    if isinstance(offered, str) or not all(isinstance(name, str) for name in offered):
        raise TypeError(
            f"kernels({precision!r}) of the model gave {offered!r}, and must give a list of names"
        )
    if offered and not hasattr(model, "use_kernel"):
        raise TypeError(
            f"the model offers the kernels {offered}, and has no use_kernel(name) that takes one"
        )
    return [TORCH, *offered]


def refusal(model: Any, kernel: str) -> str:
    """Why the model cannot compute in this way here, as its use_kernel says; empty if that takes it."""
    try:
        model.use_kernel(kernel)
    except (AttributeError, ValueError) as error:
        return f" ({error})" if isinstance(error, ValueError) else ""
    return ""


def choose_way(
    model: Any, windows: npt.NDArray[np.int64], context: TrainingContext, asked: Way, workers: int
) -> Way:
    """The fastest of those asked for, where "auto" is for any, with so many workers, by a few steps without an update.

    Raises UsageError for a kernel that the model does not offer.
    """
    precisions = ["float32", "bfloat16"] if asked.precision == "auto" else [asked.precision]
    if asked.precision == "auto" and context.device.startswith("cuda"):
        with torch.cuda.device(context.device):
            is_built_in = torch.cuda.is_bf16_supported(including_emulation=False)
        precisions = ["bfloat16" if is_built_in else "float32"]
    ways = [
        Way(precision, workers, kernel)
        for precision in precisions
        for kernel in kernels(model, precision)
        if asked.kernel in ("auto", kernel)
    ]
    if not ways:
        offered = " and ".join(f'"{name}"' for name in kernels(model, precisions[0]))
        raise UsageError(
            f"the model has no such kernel here for {' or '.join(precisions)}, only {offered}"
            f"{refusal(model, asked.kernel)}",
            argument="trainer.kernel",
            value=asked.kernel,
            suggestion='"auto" takes the fastest',
        )
    if len(ways) == 1:
        return ways[0]
    try:
        times = _times(model, windows, context, ways)
    except RuntimeError:  # an operation of the model has no bfloat16 version
        if len(precisions) == 1:
            raise
        return choose_way(
            model, windows, context, attrs.evolve(asked, precision="float32"), workers
        )
    # By the least of each: they differ in their arithmetic alone.
    least = {way: min(taken) for way, taken in zip(ways, times, strict=True) if taken}
    single, half = (
        min(
            (way for way in least if way.precision == precision),
            key=least.__getitem__,
            default=None,
        )
        for precision in ("float32", "bfloat16")
    )
    if single is None or half is None:
        return single or half or ways[0]
    return half if least[half] < 0.9 * least[single] else single


def leaves_unused(model: Any, windows: npt.NDArray[np.int64], context: TrainingContext) -> bool:
    """Whether a step leaves parameters without a gradient, by that of a single window."""
    with _buffers_kept(model):
        Computation.of(model, context.device, Way()).gradients(windows[:1], None, (0, 0))
    return any(p.grad is None for p in model.parameters() if p.requires_grad)


def shares(model: Any, windows: npt.NDArray[np.int64], context: TrainingContext) -> str:
    """What a step changes that threads would share, by that of a single window: torch's global generator, or a buffer.

    As a phrase; empty if there is nothing.
    """
    draws_its_own = hasattr(model, "set_dropout_seed")
    if draws_its_own and not any(True for _ in model.buffers()):
        return ""
    states = []

    def loss(tokens: Tensor, carried: State | None) -> tuple[Tensor, State]:
        states.append(torch.default_generator.get_state())
        made = training_loss(model, tokens, carried)
        states.append(torch.default_generator.get_state())
        return made

    with _buffers_kept(model) as are_changed:
        Computation([model], context.device, Way(), loss=loss).gradients(windows[:1], None, (0, 0))
        if are_changed():
            return "the model changes its buffers in each step, as batch normalisation does"
    if draws_its_own or torch.equal(states[0], states[1]):
        return ""
    return "the model draws from torch's global generator; with a set_dropout_seed it need not (docs/writing-plugins.md)"


@contextlib.contextmanager
def _buffers_kept(model: Any) -> Iterator[Callable[[], bool]]:
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


def choose_workers(
    model: Any, windows: npt.NDArray[np.int64], context: TrainingContext, way: Way
) -> int:
    """The faster of so many workers and torch's own threads, by a few steps without an update.

    Workers where it is close: they keep more of their pace when other programs need the cores.
    """
    if way.workers == 1:
        return 1
    # By their means: they wait for other programs more or less, and a single step may be lucky.
    shared, alone = map(
        statistics.mean, _times(model, windows, context, [way, attrs.evolve(way, workers=1)])
    )
    return way.workers if shared < _CLOSE * alone else 1


def _times(
    model: Any, windows: npt.NDArray[np.int64], context: TrainingContext, ways: Sequence[Way]
) -> list[list[float]]:
    """The seconds of some steps' gradients, for each of these ways.

    They take turns, since a machine's pace may change within a second. The first step of each turn, in which memory is
    allocated, does not count, unless it takes so much longer than the first way's steps that there is no question: on a
    busy machine, torch's own threads may wait for each other for many seconds.
    """
    times: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + _TRYING * len(ways)
    while len(times[-1]) < _TURNS * _TRIALS and time.perf_counter() < end:
        for way, taken in zip(ways, times, strict=True):
            hopeless = max(_LONG, _HOPELESS * times[0][0]) if times[0] else math.inf
            with (
                _buffers_kept(model),
                contextlib.closing(Computation.of(model, context.device, way)) as computation,
            ):
                made, is_hopeless = _turn(computation, windows, hopeless)
            taken += made
            if is_hopeless:
                return times
    return times


def _turn(
    computation: Computation, windows: npt.NDArray[np.int64], hopeless: float
) -> tuple[list[float], bool]:
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
