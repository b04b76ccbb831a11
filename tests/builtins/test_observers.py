"""What the observers `progress`, `samples` and `loss-plot` write."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from components import context, make

import textgen
from textgen import Engine
from textgen.events import Evaluation, StepDone
from textgen_builtins.curves import Curve, draw
from textgen_builtins.observers import progress
from textgen_builtins.observers.cpu_watch import CpuWatch

RNN = ({"type": "rnn", "hidden_size": 8}, {"type": "sgd", "length": "3 steps"})
COUNTS = ({"type": "ngram", "order": 3}, {"type": "count"})


@pytest.mark.parametrize(("parts", "counted"), [(RNN, True), (COUNTS, False)])
def test_the_first_line_counts_parameters_where_there_are_any_and_the_same_when_resumed(
    parts: tuple[dict[str, Any], ...],
    counted: bool,
    tiny_pipeline: Callable[..., Any],
    tmp_path: Path,
) -> None:
    tables = tiny_pipeline(observer=[{"type": "progress"}]) | dict(
        zip(("model", "trainer"), parts, strict=True)
    )
    lines = []
    for again in range(3):
        console = io.StringIO()
        try:
            Engine().run(
                tables,
                output=tmp_path / "run",
                console=console,
                cancelled=lambda: not again,  # noqa: B023
            )
        except textgen.Interrupted:
            assert not again
        lines += [
            line for line in console.getvalue().splitlines() if line.startswith("training on")
        ]
    begun, resumed = lines
    assert begun == resumed
    assert (" parameters, " in begun) is counted
    assert begun.startswith("training on cpu: ")
    assert " tokens in the vocabulary, " in begun


def test_the_time_left_is_that_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run has evaluated once, for a second of its few, when it first says how long it
    takes.
    """
    now = 0.0
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now))
    shown = progress.Progress(console := io.StringIO())
    for step in range(1, 12):
        shown.observe(StepDone(step=step, steps=100, epoch=1, loss=2.0, tokens=10))
        now += 0.1
    now += 5.0
    losses = {
        "training_loss": 2.0,
        "validation_loss": 2.0,
        "perplexity": 7.4,
        "bits_per_character": 2.9,
    }
    rest = {
        "characters_per_second": 1.0,
        "seconds": 6.0,
        "best": True,
        "sample": lambda prompt, size: prompt,
    }
    shown.observe(Evaluation(step=11, epoch=1, **losses, **rest))
    assert ", 100 tokens/s, 9 s left\n" in console.getvalue()
    now += 31.0
    shown.observe(StepDone(step=12, steps=100, epoch=1, loss=1.5, tokens=10))
    assert "step 12/100: loss 1.500, " in console.getvalue()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the counters are those of Linux")
def test_what_other_programs_use_of_the_cores_is_measured() -> None:
    watch = CpuWatch()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert watch.cores_of_others() > 0.1


def test_an_observer_that_writes_files_asks_for_a_run_directory() -> None:
    with pytest.raises(ValueError, match="no run directory"):
        make("observer", "metrics", context())


@pytest.mark.parametrize(
    ("options", "expected"), [({}, [1, *range(6, 61, 6)]), ({"every": 25}, [1, 25, 50])]
)
def test_a_run_has_some_ten_samples_at_equal_distances_or_as_many_as_asked_for(
    options: dict[str, Any],
    expected: list[int],
    tiny_pipeline: Callable[..., Any],
    tmp_path: Path,
) -> None:
    trainer = {"length": "60 steps", "evaluate_every": 1}
    samples = {"type": "samples", "max_new_tokens": 5, **options}
    tables = tiny_pipeline(trainer=trainer, observer=[samples])
    textgen.run(tables, output=tmp_path / "run")
    text = (tmp_path / "run/samples.txt").read_text(encoding="utf-8")
    steps = [int(step) for step in re.findall(r"^=== step (\d+) ===$", text, re.MULTILINE)]
    assert steps == expected


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
