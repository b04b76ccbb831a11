"""How long a training lasts, when it evaluates, and how it computes: as its options say, or as measured."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any, Final

import attrs

from textgen.events import Settled
from textgen.gradient import choosing
from textgen.gradient.batches import Batches
from textgen.gradient.computing import TORCH, Computation, Way
from textgen.gradient.options import GradientOptions, seconds_of
from textgen.gradient.schedules import Schedule, stable_steps
from textgen.protocols import TrainingContext

logger = logging.getLogger("textgen")
_EVALUATIONS: Final = 10  # in a run with a budget
_EVALUATING: Final = 0.18  # share of a budget that they may take
_UNTIMED: Final = 3  # first steps, which allocate memory and start threads
_FAR: Final = 10**9
_TIMED: Final = 0.03  # share of a budget in which the time of a step is measured
_RESERVE: Final = 0.07  # share of a budget that is left for checkpoints and what cannot be measured


@attrs.define(eq=False)
class Plan:
    """How many steps there will be, when to evaluate, and how to compute: as the options say, or as measured.

    steps  None while a budget's steps are being measured
    """

    options: GradientOptions
    context: TrainingContext
    batches: Batches
    steps: int | None = attrs.field(init=False)
    _evaluations: int = attrs.field(default=_EVALUATIONS, init=False)
    _measured: int = attrs.field(default=0, init=False)
    _stable_steps: int | None = attrs.field(default=None, init=False)
    _settled: dict[str, int | str] = attrs.field(factory=dict, init=False)
    _begun: float = attrs.field(factory=time.perf_counter, init=False)
    _times: list[float] = attrs.field(factory=list, init=False)
    _evaluation_seconds: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        options, recorded = self.options, self.options.settled.get("steps")
        self.steps = options.steps
        if self.steps is None and options.budget is None:
            self.steps = options.epochs * self.batches.per_epoch
        elif self.steps is None and recorded is not None and options.settled.get("budget") == options.budget:
            self.steps, self._measured = int(recorded), int(options.settled.get("measured", 0))
            self._evaluations = int(options.settled.get("evaluations", _EVALUATIONS))

    def computation(self, model: Any) -> Computation:
        """In the way that is the fastest where options are "auto", or among several processes."""
        context, windows, processes = self.context, self.batches.batch(0, 0), self.context.processes
        if processes is None:
            workers = self.options.settled.get("workers", self.options.workers)
            if workers != 1 and context.device == "cpu" and choosing.draws(model, windows, context):
                workers = self._one_worker(workers)
            way = self._way(model, windows, choosing.most_workers(model, windows, context) if workers != 1 else 1)
            if workers == "auto":
                workers = self._settled["workers"] = choosing.choose_workers(model, windows, context, way)
            workers = min(int(workers), len(windows)) if context.device == "cpu" else 1
            return Computation.of(model, context.device, attrs.evolve(way, workers=workers))
        from textgen.gradient.distributed import DistributedComputation, check

        def choose() -> list[Any]:
            check(model, context.device, self.options.batch_size, processes)
            unused = context.device == "cpu" or choosing.leaves_unused(model, windows, context)
            way = self._way(model, windows[processes.rows(len(windows))], 1)
            return [way.precision, way.kernel, unused]

        precision, kernel, unused = processes.agree(choose)
        way = Way(precision, 1, kernel)
        return DistributedComputation.among(model, context.device, way, unused, processes)

    def _one_worker(self, asked: int | str) -> int:
        """For a model that draws from torch's global generator, which threads would share."""
        if asked == "auto":
            self._settled["workers"] = 1
        logger.info(
            "one worker in place of %s: the model draws from torch's global generator; with a set_dropout_seed it need "
            "not (docs/writing-plugins.md)",
            asked,
        )
        return 1

    def _way(self, model: Any, windows: Any, workers: int) -> Way:
        """The precision and the kernel asked for, or settled by an earlier run, or the fastest."""
        settled, options = self.options.settled, self.options
        asked = Way(str(settled.get("precision", options.precision)), 1, str(settled.get("kernel", options.kernel)))
        if "kernel" in settled and asked.kernel not in choosing.kernels(model, asked.precision):
            warnings.warn(
                f"an earlier run took the kernel {asked.kernel!r}, which is not available here"
                f"{choosing.refusal(model, asked.kernel)}: this one takes torch's, and its numbers differ in their "
                "last digits",
                stacklevel=2,
            )
            asked = attrs.evolve(asked, kernel=TORCH)
        way = choosing.choose_way(model, windows, self.context, asked, workers)
        decided = {"precision": way.precision, "kernel": way.kernel}
        self._settled |= {name: value for name, value in decided.items() if getattr(asked, name) == "auto"}
        return way

    def settle(self) -> Iterator[Settled]:
        """Tell once what was decided, so that it is recorded."""
        if self._settled:
            yield Settled(options={"settled": {**self.options.settled, **self._settled}})

    def is_due(self, step: int) -> bool:
        """Whether to evaluate after this step."""
        if self.steps is None:
            return self._is_measured()
        if step and step == self._measured:
            return True
        every = self.options.evaluate_every or self._evaluate_every(self.steps)
        return step > 0 and (step % every == 0 or step == self.steps)

    def horizon(self, step: int) -> int:
        """The number of steps for the schedule; far away while it is being measured, so that nothing decays."""
        return _FAR if self.steps is None or step <= self._undecayed else self.steps

    @property
    def _undecayed(self) -> int:
        """The steps of the measurement, and one more, after which the engine can still keep the state."""
        return self._measured + 1 if self._measured else 0

    def stable_steps(self, schedule: Schedule) -> int | None:
        """How many steps are the same however many there will be; None while that is being measured."""
        if self._stable_steps is None and self.steps is not None:
            refused = getattr(self.options, "refuse_more", str)()
            stable = 0 if refused else stable_steps(schedule, self.steps)
            self._stable_steps = max(stable, self._undecayed) if stable else 0
        return self._stable_steps

    def _evaluate_every(self, steps: int) -> int:
        if self.options.budget is not None:
            return -(-steps // self._evaluations)
        return min(self.batches.per_epoch, -(-steps // 8))

    def step_done(self) -> None:
        """Take the time, while it is being measured."""
        if self.steps is None:
            self._times.append(time.perf_counter())

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Take the time of an evaluation and of all that the engine does about it."""
        begun = time.perf_counter()
        yield
        self._evaluation_seconds = time.perf_counter() - begun

    def _is_measured(self) -> bool:
        if len(self._times) <= 2 * _UNTIMED:
            return False
        assert self.options.budget is not None
        return self._times[-1] - self._times[_UNTIMED] >= _TIMED * seconds_of(self.options.budget)

    def estimated_steps(self, step: int) -> int:
        """A first guess at the number of steps, while it is being measured: at the pace so far, for what is left."""
        assert self.options.budget is not None
        left = seconds_of(self.options.budget) - self.context.elapsed - (time.perf_counter() - self._begun)
        pace = (self._times[-1] - self._times[0]) / (len(self._times) - 1) if len(self._times) > 1 else 1.0
        return step + max(1, int(left / pace))

    def measure(self, step: int) -> None:
        """Set the number of steps that fill the budget."""
        assert self.options.budget is not None
        timed = self._times[_UNTIMED:]
        a_step = (timed[-1] - timed[0]) / (len(timed) - 1)
        budget, self._settled["budget"] = seconds_of(self.options.budget), self.options.budget
        spent = self.context.elapsed + time.perf_counter() - self._begun
        left = budget * (1 - _RESERVE) - spent
        most = int(_EVALUATING * left / max(self._evaluation_seconds, 1e-9))
        self._evaluations = self._settled["evaluations"] = max(1, min(_EVALUATIONS, most))
        left -= self._evaluations * self._evaluation_seconds
        self._measured = self._settled["measured"] = step
        self.steps = self._settled["steps"] = step + max(2, int(left / a_step))
        if self.steps < (earlier := int(self.options.settled.get("steps", 0))):
            warnings.warn(
                f"{self.options.budget} are enough for {self.steps:,} steps, fewer than the {earlier:,} of before: "
                "a step takes longer than it did",
                stacklevel=2,
            )
