"""What the benchmarks share: arguments, times and how they are shown."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence


def parser(description: str | None) -> argparse.ArgumentParser:
    """For the options of a program that its docstring describes."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw)


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show(name: str, found: Sequence[float]) -> None:
    """Print the median of figures and their spread."""
    low, median, high = min(found), statistics.median(found), max(found)
    print(f"{name:70} {median:8.2f} ({low:.2f} to {high:.2f})", flush=True)
