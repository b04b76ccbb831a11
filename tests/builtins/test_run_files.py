"""Samples and the plot of a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import textgen
from textgen_builtins.observers.loss_plot import draw


def test_a_run_has_some_ten_samples_at_equal_distances(
    tiny_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = {"steps": 60, "evaluate_every": 1}
    tables = tiny_pipeline(trainer=trainer, observer=[{"type": "samples", "max_new_tokens": 5}])
    textgen.run(tables, output=tmp_path / "run")
    text = (tmp_path / "run/samples.txt").read_text(encoding="utf-8")
    steps = [int(step) for step in re.findall(r"^=== step (\d+) ===$", text, re.MULTILINE)]
    assert steps == [1, *range(6, 61, 6)]


def test_every_counts_evaluations(tiny_pipeline: Callable[..., Any], tmp_path: Path) -> None:
    trainer = {"steps": 20, "evaluate_every": 2}
    tables = tiny_pipeline(
        trainer=trainer, observer=[{"type": "samples", "max_new_tokens": 5, "every": 4}]
    )
    textgen.run(tables, output=tmp_path / "run")
    text = (tmp_path / "run/samples.txt").read_text(encoding="utf-8")
    assert re.findall(r"^=== step (\d+) ===$", text, re.MULTILINE) == ["2", "8", "16"]


def test_the_plot_marks_the_best_loss_where_it_is_not_the_last() -> None:
    rows = [
        {"step": n, "training_loss": 3.0 / n, "validation_loss": loss}
        for n, loss in enumerate((2.0, 1.5, 1.75), 1)
    ]
    assert "best 1.500" in draw(rows)
    assert "best" not in draw(rows[:2])
