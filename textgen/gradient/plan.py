"""How long a training lasts, when it evaluates, and how it computes: as its options say, or as measured."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from typing import Any, Final

import attrs

from textgen.events import Settled
from textgen.gradient.batches import Batches
from textgen.gradient.computing import Computation
from textgen.gradient.options import GradientOptions, seconds_of
from textgen.gradient.schedules import Schedule, stable_steps
from textgen.protocols import TrainingContext

_EVALUATIONS: Final = 10  # in a run with a budget
_EVALUATING: Final = 0.18  # share of a budget that they may take
_UNTIMED: Final = 3  # first steps, which allocate memory and start threads
_FAR: Final = 10**9
_SOME: Final = (
    1000  # steps for which a schedule is asked whether the first of them depend on their number
)
_TIMED: Final = 0.03  # share of a budget in which the time of a step is measured
_RESERVE: Final = 0.05  # share of a budget that is left for checkpoints and what cannot be measured


@attrs.define(eq=False)
class Plan:
    """How many steps there will be, when to evaluate, and how to compute: as the options say, or as measured.

    A budget's steps are measured at the beginning, and again at each evaluation for as long as the learning rate does
    not depend on their number. A run that was given what another has measured does not measure.

    steps      None until a budget's steps are measured
    measuring  whether to measure them, if need be again
    """

    options: GradientOptions
    context: TrainingContext
    batches: Batches
    schedule: Schedule
    steps: int | None = attrs.field(init=False)
    _evaluations: int = attrs.field(default=_EVALUATIONS, init=False)
    _measured: list[int] = attrs.field(factory=list, init=False)  # the steps after which they were
    measuring: bool = attrs.field(init=False)
    _stable_steps: int | None = attrs.field(default=None, init=False)
    _decays_late: bool | None = attrs.field(
        default=None, init=False
    )  # the schedule, if it does at all
    _settled: dict[str, int | str] = attrs.field(factory=dict, init=False)
    _begun: float = attrs.field(factory=time.perf_counter, init=False)
    _times: list[float] = attrs.field(factory=list, init=False)
    _timed: tuple[float, int] = attrs.field(
        default=(0.0, 0), init=False
    )  # seconds, and steps made in them
    _since: tuple[float, int] | None = attrs.field(
        default=None, init=False
    )  # when the steps after this one began
    _evaluation_seconds: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        options, settled = self.options, self.options.settled
        self.steps = options.steps
        leads = self.context.processes is None or self.context.processes.leads
        if options.steps is not None and options.budget is not None and leads:
            told = f"the run makes {options.steps:,} steps, and its budget of {options.budget} is not used"
            warnings.warn(f"{told}; give the trainer one of steps and budget", stacklevel=2)
        if options.budget is None:
            self.steps = self.steps or options.epochs * self.batches.per_epoch
        elif self.steps is None:
            self._measured = [int(step) for step in str(settled.get("measured", "")).split()]
            if settled.get("budget") == options.budget:
                self.steps = int(settled["steps"])
                self._evaluations = int(settled.get("evaluations", _EVALUATIONS))
        self.measuring = self.steps is None

    def computation(self, model: Any) -> Computation:
        """Steps in the precision that was asked for, or decided by an earlier run, or is the faster here."""
        context, windows, processes = self.context, self.batches.batch(0, 0), self.context.processes
        if processes is None:
            made = Computation.of(model, windows, context)
            made.precision = self._precision(made, windows)
            return made
        from textgen.gradient.distributed import DistributedComputation, check

        check(model, windows, context.device, self.options.batch_size, processes)
        own = windows[processes.rows(len(windows))]
        made = DistributedComputation.among(model, context.device, processes)
        made.precision = processes.agree(
            lambda: self._precision(Computation([model], context.device), own)
        )
        return made

    def _precision(self, computation: Computation, windows: Any) -> str:
        chosen = str(self.options.settled.get("precision", self.options.compute))
        if chosen == "auto":
            chosen = self._settled["precision"] = computation.faster_precision(windows)
        return chosen

    def settle(self) -> Iterator[Settled]:
        """Tell once what was decided, so that it is recorded."""
        if self._settled:
            yield Settled(options={"settled": {**self.options.settled, **self._settled}})

    def is_due(self, step: int) -> bool:
        """Whether to evaluate after this step."""
        if self.steps is None:
            return self._is_measured()
        if step in self._measured:
            return True
        if self.options.evaluate_every:
            return step > 0 and (step % self.options.evaluate_every == 0 or step == self.steps)
        since = step - self._last_measured
        return since > 0 and (since % self._evaluate_every == 0 or step == self.steps)

    def horizon(self, step: int) -> int:
        """The number of steps for the schedule; far away while it is being measured, so that nothing decays."""
        return _FAR if self.steps is None or step <= self._undecayed else self.steps

    @property
    def _last_measured(self) -> int:
        return self._measured[-1] if self._measured else 0

    @property
    def _undecayed(self) -> int:
        """The steps of the measurements, and one more, after which the engine can still keep the state."""
        return self._last_measured + 1 if self._measured else 0

    def stable_steps(self, step: int) -> int:
        """How many steps, of which this one is made, are the same however many there will be."""
        if self.steps is None:  # while that is being measured, nothing decays
            self._decays_late = (
                self._stable(_SOME) > 0 if self._decays_late is None else self._decays_late
            )
            return step + 1 if self._decays_late else 0
        if self._stable_steps is None:
            stable = self._stable(self.steps)
            self._stable_steps = max(stable, self._undecayed) if stable else 0
        return self._stable_steps

    def _stable(self, steps: int) -> int:
        return (
            0 if getattr(self.options, "refuse_more", str)() else stable_steps(self.schedule, steps)
        )

    @property
    def _evaluate_every(self) -> int:
        assert self.steps is not None
        if self.options.budget is not None:
            return max(1, -(-(self.steps - self._last_measured) // self._evaluations_left))
        return min(self.batches.per_epoch, -(-self.steps // 8))

    @property
    def _evaluations_left(self) -> int:
        """With a budget, after the last of the measurements, the first of which is beside their number."""
        return max(1, self._evaluations - max(0, len(self._measured) - 1))

    def step_done(self, step: int) -> None:
        """Take the time, while it is being measured."""
        if self.steps is None:
            self._times.append(time.perf_counter())
        self._since = self._since or (time.perf_counter(), step)

    @contextlib.contextmanager
    def evaluation(self, step: int) -> Iterator[None]:
        """Take the time of the steps before an evaluation, and of that with all that the engine does about it."""
        begun = time.perf_counter()
        if self._since:
            seconds, steps = self._timed
            self._timed = (seconds + begun - self._since[0], steps + step - self._since[1])
        yield
        self._since = (time.perf_counter(), step)
        self._evaluation_seconds = self._since[0] - begun

    def _is_measured(self) -> bool:
        if len(self._times) <= 2 * _UNTIMED:
            return False
        assert self.options.budget is not None
        return self._times[-1] - self._times[_UNTIMED] >= _TIMED * seconds_of(self.options.budget)

    def estimated_steps(self, step: int) -> int:
        """A first guess at the number of steps, while it is being measured: at the pace so far, for what is left."""
        assert self.options.budget is not None
        left = (
            seconds_of(self.options.budget)
            - self.context.elapsed
            - (time.perf_counter() - self._begun)
        )
        pace = (
            (self._times[-1] - self._times[0]) / (len(self._times) - 1)
            if len(self._times) > 1
            else 1.0
        )
        return step + max(1, int(left / pace))

    def resume(self, measuring: bool) -> None:
        """Go on measuring, if the interrupted run did, what it had not been given."""
        self.measuring = self.measuring or (measuring and self.options.steps is None)

    def measures(self, step: int) -> bool:
        """Whether to measure after an evaluation after this step."""
        if not self.measuring or self.steps is None:
            return self.measuring
        self.measuring = bool(self.stable_steps(step)) and step < stable_steps(
            self.schedule, self.steps
        )
        return self.measuring

    def measure(self, step: int) -> None:
        """Set the number of steps that fill the budget."""
        assert self.options.budget is not None
        budget, is_first = seconds_of(self.options.budget), self.steps is None
        left = budget * (1 - _RESERVE) - self.context.elapsed - (time.perf_counter() - self._begun)
        self._measured = [
            each for each in self._measured if each < step
        ]  # others are of a longer run
        if is_first:
            timed = self._times[_UNTIMED:]
            self._timed = (timed[-1] - timed[0], len(timed) - 1)
            most = int(_EVALUATING * left / max(self._evaluation_seconds, 1e-9))
            self._evaluations = len(self._measured) + max(1, min(_EVALUATIONS, most))
        self._measured.append(step)
        left -= self._evaluations_left * self._evaluation_seconds
        seconds, timed_steps = self._timed
        steps = (
            step + max(2, int(left * timed_steps / seconds)) if timed_steps else self.steps or step
        )
        while not is_first and stable_steps(self.schedule, steps) <= step:
            steps += max(
                1, steps // 100
            )  # no fewer than those of which it has made what does not depend on them
        self.steps, self._stable_steps = steps, None
        self._settled |= {
            "budget": self.options.budget,
            "steps": steps,
            "measured": " ".join(map(str, self._measured)),
            "evaluations": self._evaluations,
        }
        if is_first and steps < (earlier := int(self.options.settled.get("steps", 0))):
            warnings.warn(
                f"{self.options.budget} are enough for {steps:,} steps, fewer than the {earlier:,} of before: a step "
                "takes longer than it did",
                stacklevel=2,
            )
