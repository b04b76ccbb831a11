"""Runs the rows of a batch in one thread or in two, whichever is currently faster on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_FEWEST_ROWS: Final = 128
_FEWEST_STEPS: Final = 16  # fewer are done before another core is awake
_EARLY: Final = (3, 5)  # turns in which the slower way is tried again, as in every one of _TURNS
_TURNS: Final = 16
_FADING: Final = (
    1.25  # the shortest time grows by this factor with each turn, so that it is renewed
)


@attrs.define(eq=False)
class RowThreads:
    """Runs work on independent rows, and times it. The decoders of a model may share one.

    NumPy releases the interpreter lock within its calls, not between. So a second thread helps for large batches
    of small products on a free core, and costs time on a busy one. More than two would wait for the lock.
    """

    _seconds: list[float] = attrs.field(
        factory=lambda: [0.0, 0.0]
    )  # per row and step, in one thread and in two
    _turn: int = 0
    _pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[slice], None], rows: int, steps: int) -> None:
        """Call `work` with all rows at once, or with each half of them. `steps` says how much work it is."""
        if rows < _FEWEST_ROWS or steps < _FEWEST_STEPS:
            work(slice(None))
            return
        self._turn += 1
        both = self._seconds[1] < self._seconds[0]  # a way that was never tried has no time yet
        if self._turn in _EARLY or self._turn % _TURNS == 0:
            both = not both
        begun = time.perf_counter()
        if both:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(1, "textgen-rows")
            other = self._pool.submit(work, slice(rows // 2, rows))
            work(slice(0, rows // 2))
            other.result()
        else:
            work(slice(None))
        taken = (time.perf_counter() - begun) / (rows * steps)
        self._seconds[both] = min(taken, self._seconds[both] * _FADING or taken)
