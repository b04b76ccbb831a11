"""Samples and the plot of a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import textgen
from textgen_builtins.curves import Curve, draw


def test_a_run_has_some_ten_samples_at_equal_distances(
    tiny_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = {"length": "60 steps", "evaluate_every": 1}
    tables = tiny_pipeline(trainer=trainer, observer=[{"type": "samples", "max_new_tokens": 5}])
    textgen.run(tables, output=tmp_path / "run")
    text = (tmp_path / "run/samples.txt").read_text(encoding="utf-8")
    steps = [int(step) for step in re.findall(r"^=== step (\d+) ===$", text, re.MULTILINE)]
    assert steps == [1, *range(6, 61, 6)]


def test_every_counts_evaluations(tiny_pipeline: Callable[..., Any], tmp_path: Path) -> None:
    trainer = {"length": "20 steps", "evaluate_every": 2}
    tables = tiny_pipeline(
        trainer=trainer, observer=[{"type": "samples", "max_new_tokens": 5, "every": 4}]
    )
    textgen.run(tables, output=tmp_path / "run")
    text = (tmp_path / "run/samples.txt").read_text(encoding="utf-8")
    assert re.findall(r"^=== step (\d+) ===$", text, re.MULTILINE) == ["2", "8", "16"]


def test_the_plot_says_whose_the_training_loss_is_and_which_loss_was_the_best(
    tiny_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    points = [(1, 2.0), (2, 1.5), (3, 1.75)]
    assert "1.750 validation, best 1.500</text>" in draw([Curve("validation", points)], "loss")
    tables = tiny_pipeline(observers=True)
    textgen.run(tables, output=tmp_path / "network")
    plot = (tmp_path / "network/loss.svg").read_text(encoding="utf-8")
    assert re.search(r">[\d.]+ training(, best [\d.]+)?</text>", plot)
    parts = {"type": "mixture", "first": tables["model"]}
    trainer = {"type": "mixture", "first": {"type": "sgd", "length": "1 epoch"}}
    textgen.run({**tables, "model": parts, "trainer": trainer}, output=tmp_path / "mixture")
    plot = (tmp_path / "mixture/loss.svg").read_text(encoding="utf-8")
    assert "training of the first model alone" in plot
    assert re.search(r">[\d.]+ validation", plot)
