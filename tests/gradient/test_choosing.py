"""The choice between workers and torch's own threads, by a clock that only the steps move."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from textgen.gradient.choosing import choose_workers
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
    [(900, 1000, 2), (1000, 1000, 2), (1080, 1000, 2), (1098, 1000, 2), (1102, 1000, 1), (1200, 1000, 1)],
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
            clock.spend((alone if is_alone else by_workers / 2) * UNIT)  # each of the two computes a part of a step
            return self.weights(tokens), ()

    monkeypatch.setattr("textgen.gradient.choosing.time", SimpleNamespace(perf_counter=clock.perf_counter))
    windows, context = np.zeros((2, 3), np.int64), TrainingContext(seed=0, device="cpu")
    assert choose_workers(Timed(), windows, context, Way(workers=2)) == chosen
