"""The number of steps of a training, and after which of them it evaluates."""

from __future__ import annotations

import math
from typing import Final

import attrs

from textgen.gradient.options import GradientOptions, Length
from textgen.gradient.schedules import Schedule, steps_before_decay

_EVALUATIONS: Final = 10  # evaluations at most in a training whose length is a time
_EVALUATION_SHARE: Final = 0.13  # share of the time that they may take
_WARMUP_STEPS: Final = 3  # first steps, not timed: they allocate memory and start threads
_PACE_KNOWN_SHARE: Final = 0.03  # share of the time after which the pace of steps is known
_RESERVED_SHARE: Final = 0.05  # share of the time that is kept for after the last step
_UNDECIDED_STEPS: Final = 10**9  # steps of a schedule whose number is not decided: nothing decays


@attrs.define(eq=False)
class Plan:
    """Decides how many steps a training makes, and after which of them it evaluates.

    If a time may end it, the number of steps is decided once, from the pace of the steps so far,
    as late as possible: before the first step whose learning rate depends on that number. Where no
    rate depends on it, it is decided when the time is over. All processes of a run are told the
    same times, and so decide the same.

    evaluation_steps     steps that take as long as an evaluation, a guess before there was one
    steps                None until the number of steps is decided
    steps_before_decay   first steps, which would be the same in a longer training
    """

    options: GradientOptions
    steps_per_epoch: int
    schedule: Schedule
    evaluation_steps: float
    steps: int | None = attrs.field(default=None, init=False)
    steps_before_decay: int = attrs.field(default=0, init=False)
    _seconds: float = attrs.field(init=False)
    _most: int = attrs.field(init=False)  # steps
    _done: int = attrs.field(default=0, init=False)  # steps of this training
    _last_began: float = attrs.field(default=0.0, init=False)  # beginning of the last step
    _timed_seconds: float = attrs.field(default=0.0, init=False)
    _timed_steps: int = attrs.field(default=0, init=False)
    _has_evaluated: bool = attrs.field(default=False, init=False)  # since the last step
    _evaluated_began: float = attrs.field(default=0.0, init=False)  # of the step evaluated last

    def __attrs_post_init__(self) -> None:
        length = Length.of(self.options.length)
        self._seconds = length.seconds
        epochs = length.epochs * self.steps_per_epoch
        self._most = int(min(length.steps, epochs, _UNDECIDED_STEPS))
        if math.isinf(length.seconds):
            self.decide(self._most, steps_before_decay(self.schedule, self._most))

    def decide(self, steps: int, before_decay: int) -> None:
        """Fix the number of steps. The learning rates of the first `before_decay` are the same
        whatever the number is.
        """
        self.steps, self.steps_before_decay = steps, before_decay

    def step_done(self, step: int, began: float) -> None:
        """Count a step that is done, and decide the number of steps if it is time to.

        began   when the step began, in seconds after the run did
        """
        self._time_previous_step(began)
        if self.steps is not None:
            return
        left = self._left()
        is_pace_known = self._timed_seconds >= _PACE_KNOWN_SHARE * self._seconds
        if left <= 0 or step >= self._most or (is_pace_known and left < self._pace):
            self.decide(step, step)  # there is no time for another
            return
        steps = self.expected_steps(step)
        factors = {self.schedule(step + 1, each) for each in (steps, _UNDECIDED_STEPS)}
        is_sure = is_pace_known or (self._timed_steps and steps == self._most)
        if is_sure and len(factors) > 1:
            self.decide(steps, step)  # the learning rate depends on their number

    def _time_previous_step(self, next_began: float) -> None:
        """Time the step before this one: it took the time between their beginnings. If there was an
        evaluation between them, what is more than a step's time is the evaluation's.
        """
        seconds = next_began - self._last_began
        if not self._done:
            self._evaluated_began = next_began
        if self._has_evaluated and (self._timed_steps or self._done > _WARMUP_STEPS):
            self.evaluation_steps = max(0.0, seconds / self._pace - 1)
        elif self._done > _WARMUP_STEPS:
            self._timed_seconds += seconds
            self._timed_steps += 1
        self._last_began, self._has_evaluated = next_began, False
        self._done += 1

    def evaluated(self) -> None:
        """Count the time until the next step as an evaluation's."""
        self._evaluated_began, self._has_evaluated = self._last_began, self._done > 0

    def factor(self, step: int) -> float:
        """The factor of the learning rate in a step."""
        return float(self.schedule(step, self.steps or _UNDECIDED_STEPS))

    def before_decay_so_far(self, step: int) -> int:
        """`steps_before_decay` as far as it is known after `step`."""
        return step + 1 if self.steps is None else self.steps_before_decay

    def expected_steps(self, step: int) -> int:
        """The number of steps, or while it is not decided what the time left is enough for after
        `step`.
        """
        if self.steps is not None:
            return self.steps
        return min(self._most, step + max(1, int(self._left() / self._pace)))

    def is_due(self, step: int, evaluated: int) -> bool:
        """Whether to evaluate after a step, the last evaluation having been after step
        `evaluated`.
        """
        if step <= max(0, evaluated):
            return False
        if step == self.steps:
            return True
        if self.options.evaluate_every:
            return step % self.options.evaluate_every == 0
        if math.isfinite(self._seconds):
            since = self._last_began - self._evaluated_began
            return self._timed_steps > 0 and since >= self._interval
        eighth = math.ceil(self.expected_steps(step) / 8)
        return step % min(self.steps_per_epoch, eighth) == 0

    def _left(self) -> float:
        """Seconds that are left for steps."""
        budget = self._seconds
        left = budget * (1 - _RESERVED_SHARE) - self._last_began - self._pace
        since = left + self._last_began - self._evaluated_began
        evaluations = 1 + max(0, since // self._interval)
        return left - min(evaluations * self.evaluation_steps * self._pace, budget / 2)

    @property
    def _interval(self) -> float:
        """Seconds from one evaluation to the next, of which the last ends the training."""
        steps = self._most * self._pace / (1 - _EVALUATION_SHARE)
        budget = min(self._seconds, steps)
        most = _EVALUATION_SHARE * budget / self._pace / (self.evaluation_steps + 0.01)
        return budget / max(1, min(_EVALUATIONS, int(most)))

    @property
    def _pace(self) -> float:
        """Seconds of a step, a guess while none is timed."""
        return self._timed_seconds / self._timed_steps if self._timed_steps else 0.1
