"""The choice between workers and torch's own threads, by a clock that only the steps move."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from textgen.gradient.choosing import choose_way, choose_workers
from textgen.gradient.computing import Way
from textgen.protocols import TrainingContext

UNIT = 2.0**-20  # seconds: added up without rounding


class Clock:
    """Tells the time that was spent."""

    def __init__(self) -> None:
        self._now, self._lock = 0.0, threading.Lock()

    def spend(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds

    def perf_counter(self) -> float:
        return self._now


@pytest.mark.parametrize(
    ("by_workers", "alone", "chosen"),
    [
        (900, 1000, 2),
        (1000, 1000, 2),
        (1080, 1000, 2),
        (1098, 1000, 2),
        (1102, 1000, 1),
        (1200, 1000, 1),
    ],
)
def test_workers_are_taken_where_a_step_of_theirs_takes_at_most_a_tenth_longer(
    by_workers: int, alone: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    class Timed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Embedding(3, 3)

        def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            is_alone = threading.current_thread() is threading.main_thread()
            clock.spend(
                (alone if is_alone else by_workers / 2) * UNIT
            )  # each of the two computes a part of a step
            return self.weights(tokens), ()

    monkeypatch.setattr(
        "textgen.gradient.choosing.time", SimpleNamespace(perf_counter=clock.perf_counter)
    )
    windows, context = np.zeros((2, 3), np.int64), TrainingContext(seed=0, device="cpu")
    assert choose_workers(Timed(), windows, context, Way(workers=2)) == chosen


def test_a_kernel_that_is_compiled_in_its_first_step_is_tried_beyond_it() -> None:
    class Compiled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights, self.kernel, self.is_compiled = torch.nn.Embedding(3, 3), "torch", False

        def kernels(self, precision: str) -> list[str]:
            return ["quick"] if precision == "float32" else []

        def use_kernel(self, name: str) -> None:
            self.kernel = name

        def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            if self.kernel == "torch":
                time.sleep(0.02)
            elif not self.is_compiled:
                time.sleep(0.4)
                self.is_compiled = True
            return self.weights(tokens), ()

    windows, context = np.zeros((2, 3), np.int64), TrainingContext(seed=0, device="cpu")
    for precision, kernel in (("auto", "quick"), ("float32", "quick"), ("bfloat16", "torch")):
        way = choose_way(Compiled(), windows, context, Way(precision, 1, "auto"), 1)
        assert (way.precision, way.kernel) == (
            "float32" if precision == "auto" else precision,
            kernel,
        )


@pytest.mark.parametrize(
    ("offered", "has_use", "said"),
    [
        (["broken"], True, "kaputt"),
        ("broken", True, "must give a list of names"),
        (["broken"], False, r"has no use_kernel"),
    ],
)
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_kernel_that_fails_is_said(
    offered: Any, has_use: bool, said: str, precision: str
) -> None:
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights, self.kernel = torch.nn.Embedding(3, 3), "torch"
            if has_use:
                self.use_kernel = lambda name: setattr(self, "kernel", name)

        def kernels(self, precision: str) -> Any:
            return offered

        def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            if self.kernel == "broken":
                raise RuntimeError("kaputt")
            return self.weights(tokens), ()

    windows, context = np.zeros((2, 3), np.int64), TrainingContext(seed=0, device="cpu")
    with pytest.raises((RuntimeError, TypeError), match=said):
        choose_way(Broken(), windows, context, Way(precision, 1, "auto"), 1)
