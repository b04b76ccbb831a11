"""Times two callables in turn, A B A B ..., and gives the ratio pair by pair: these machines are noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def ratios(
    baseline: Callable[[], object], ours: Callable[[], object], repeats: int = 7
) -> tuple[float, float, float]:
    """(least, median, greatest) of baseline seconds over our seconds, after one warm-up of each."""
    baseline(), ours()
    found = []
    for _ in range(repeats):
        slow, fast = seconds(baseline), seconds(ours)
        found.append(slow / fast)
    return min(found), statistics.median(found), max(found)


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show(name: str, spread: tuple[float, float, float], target: float) -> None:
    """Print a ratio beside its target."""
    low, median, high = spread
    verdict = "ok" if median >= target else "SHORT"
    print(
        f"{name:58} {median:8.2f} times ({low:.2f} to {high:.2f}), target {target:g}: {verdict}",
        flush=True,
    )
