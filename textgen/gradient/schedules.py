"""Schedules of the learning rate: a factor of the optimizer's own rate, for each step of a known
number.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int, int], float]
"""`schedule(step, steps)` is the factor of the learning rate in step 1, 2, ... `steps`."""


def constant(step: int, steps: int) -> float:
    """The optimizer's own rate in every step."""
    return 1.0


def cosine(*, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Rise for `warmup` steps, then fall to `final` along half a cosine (Loshchilov and Hutter,
    "SGDR", 2017).
    """

    def factor(step: int, steps: int) -> float:
        if step <= warmup:
            return step / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def warmup_stable_decay(*, warmup: int = 0, decay: float = 0.5, final: float = 0.0) -> Schedule:
    """Rise for `warmup` steps, stay, and fall straight to `final` in the last share `decay` of all
    steps.

    Until the decay begins, the weights do not depend on the number of steps (Hu and others,
    "MiniCPM", 2024).
    """

    def factor(step: int, steps: int) -> float:
        rising = step / warmup if step < warmup else 1.0
        falling = (steps - step + 1) / max(1.0, decay * steps) if decay else 1.0
        return min(rising, final + (1 - final) * min(1.0, falling))

    return factor


def steps_before_decay(schedule: Schedule, steps: int) -> int:
    """The number of first steps whose factor stays the same when there are more steps in all.

    All steps of a constant schedule; the steps before the decay of `warmup_stable_decay`; the
    warm-up of a cosine. Once the factor of a step depends on their number, so must the factors of
    all later steps.
    """
    return bisect.bisect_left(
        range(1, steps + 1),
        True,
        key=lambda step: schedule(step, steps) != schedule(step, 2 * steps),
    )
