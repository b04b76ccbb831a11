"""The number of steps of a training, and after which of them it evaluates."""

from __future__ import annotations

from typing import Final

import attrs

from textgen.gradient.options import GradientOptions, Length
from textgen.gradient.schedules import Schedule, steps_before_decay

_EVALUATIONS: Final = 10  # in a run of a given time
_EVALUATING: Final = 0.13  # share of the time that they may take
_UNTIMED: Final = 3  # first steps, which allocate memory and start threads
_TIMED: Final = 0.03  # share of the time after which the pace is known
_RESERVE: Final = 0.05  # share of the time that is left for what comes after the last step
_UNDECIDED_STEPS: Final = 10**9  # steps of a schedule whose number is not decided: nothing decays


@attrs.define(eq=False)
class Plan:
    """The number of steps, and the evaluations.

    A time is turned into a number of steps once, from the pace of all steps so far: before the
    first step whose learning rate depends on that number, so at the beginning of the decay; or at
    the end, where none does. All processes of a run are told the same times, and so decide the
    same.

    elapsed              seconds of the run before this training
    steps                None until the steps of a time are decided
    steps_before_decay   steps, from the first, that are the same however many there will be
    """

    options: GradientOptions
    per_epoch: int
    schedule: Schedule
    elapsed: float = 0.0
    steps: int | None = attrs.field(default=None, init=False)
    steps_before_decay: int = attrs.field(default=0, init=False)
    _length: Length = attrs.field(init=False)
    _now: float = attrs.field(default=0.0, init=False)  # when the last step began
    _done: int = attrs.field(default=0, init=False)  # steps of this training
    _timed: tuple[float, int] = attrs.field(default=(0.0, 0), init=False)  # seconds and steps
    _evaluated: float = attrs.field(default=0.0, init=False)  # `_now` at the last evaluation
    _evaluation_seconds: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._length = length = Length.of(self.options.length)
        if length.unit != "seconds":
            steps = int(length.amount) * (self.per_epoch if length.unit == "epochs" else 1)
            self.decide(steps, steps_before_decay(self.schedule, steps))

    def decide(self, steps: int, before_decay: int) -> None:
        """Make so many steps, of which the first `before_decay` are the same if there are more."""
        self.steps, self.steps_before_decay = steps, before_decay

    def step_done(self, step: int, now: float) -> None:
        """Count a step, which began `now` seconds after this training did, and decide on those to
        come.
        """
        seconds, has_evaluated = now - self._now, self._evaluated == self._now
        if self._done and has_evaluated:
            self._evaluation_seconds = max(0.0, seconds - self._pace)
        elif self._done > _UNTIMED:
            self._timed = (self._timed[0] + seconds, self._timed[1] + 1)
        self._now, self._done = now, self._done + 1
        if self.steps is not None:
            return
        left = self._left()
        is_known = self._timed[0] >= _TIMED * self._length.amount
        if left <= 0 or (is_known and left < self._pace):
            self.decide(step, step)
        elif is_known and self.schedule(step + 1, steps := self.expected_steps(step)) != (
            self.schedule(step + 1, _UNDECIDED_STEPS)
        ):
            self.decide(steps, step)

    def evaluated(self) -> None:
        """Count the time until the next step as an evaluation's."""
        self._evaluated = self._now

    def factor(self, step: int) -> float:
        """The factor of the learning rate in a step."""
        return float(self.schedule(step, self.steps or _UNDECIDED_STEPS))

    def before_decay(self, step: int) -> int:
        """`steps_before_decay` as far as it is known after `step`."""
        return step + 1 if self.steps is None else self.steps_before_decay

    def expected_steps(self, step: int) -> int:
        """The number of steps, or while it is not decided what the time left is enough for after
        `step`.
        """
        if self.steps is not None:
            return self.steps
        return step + max(1, int(self._left() / self._pace))

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
        if self._length.unit == "seconds":
            return self._now - self._evaluated >= self._interval
        return step % min(self.per_epoch, -(-self.expected_steps(step) // 8)) == 0

    def _left(self) -> float:
        """Seconds that are left for steps."""
        budget = self._length.amount
        left = budget * (1 - _RESERVE) - self.elapsed - self._now - self._pace
        evaluations = 1 + max(0, round(left / self._interval))
        return left - evaluations * self._evaluation_seconds

    @property
    def _interval(self) -> float:
        """Seconds from one evaluation to the next."""
        share = self._length.amount / _EVALUATIONS
        return max(share, self._evaluation_seconds / _EVALUATING)

    @property
    def _pace(self) -> float:
        """Seconds of a step, or a second while none is timed."""
        seconds, steps = self._timed
        return seconds / steps if steps else 1.0
