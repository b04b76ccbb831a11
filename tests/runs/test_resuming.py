"""A run that was interrupted ends as if it never had been."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
from small_run import TEXT, assert_same, interrupt, record_of, tables

import textgen
from textgen.events import StepDone


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    ("trainer", "order", "cell"), [("sgd", "shuffled", "rnn"), ("adamw", "streams", "lstm")]
)
def test_resumed_after_every_step_is_as_if_never_interrupted(
    folder: Path, trainer: str, order: str, cell: str
) -> None:
    pipeline = tables(folder, trainer, order, cell=cell, layers=2)
    whole = textgen.run(pipeline, output=folder / "whole")
    interruptions, resumed = 0, None
    while resumed is None:
        try:
            resumed = textgen.run(pipeline, output=folder / "parts", cancelled=lambda: True)
        except textgen.Interrupted:
            interruptions += 1
            assert record_of(folder / "parts")["status"] == "unfinished"
    assert interruptions == record_of(whole.path)["step"] >= 6
    assert (whole.outcome, resumed.outcome) == ("trained", "resumed")
    assert resumed.generations == whole.generations
    assert_same(resumed.path, whole.path)


def test_checkpoints_change_nothing_whenever_they_are_written(folder: Path) -> None:
    """Between a step and its evaluation too, which fits the gate of a mixture anew."""
    pipeline = tables(folder, "adamw")
    for table in ("model", "trainer"):
        pipeline[table] = {"type": "mixture", "first": pipeline[table]}
    one, other = (
        textgen.run(pipeline, {"checkpoint.seconds": seconds}, output=folder / str(seconds))
        for seconds in (0, 1000)
    )
    assert one.generator.model_id == other.generator.model_id


def test_a_checkpoint_is_written_every_so_many_seconds_and_at_the_best_evaluation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock of this test, a step takes a second.

    Older checkpoints are removed, but the best one.
    """
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("textgen.runs.training.time", clock)
    kept: list[list[int]] = []

    def watch(event: object) -> None:
        if isinstance(event, StepDone):
            now[0] += 1
            found = sorted((folder / "run/checkpoints").iterdir())
            if (steps := [int(path.name[5:]) for path in found]) not in ([], *kept[-1:]):
                kept.append(steps)

    pipeline = tables(folder)
    pipeline["trainer"] |= {"length": "20 epochs", "evaluate_every": 30, "learning_rate": 1e-3}
    pipeline["checkpoint"] = {"seconds": 20}
    textgen.run(pipeline, output=folder / "run", observers=[watch])
    assert kept == [[20], [30], [30, 50], [60]]


def test_samples_that_look_like_headings_are_kept(folder: Path) -> None:
    (folder / "text.txt").write_text(TEXT + "=== step by step ===\n")
    pipeline = tables(folder)
    pipeline["observer"][1]["prompt"] = "=== step by step ===\n"
    whole = textgen.run(pipeline, output=folder / "whole")
    interrupt(6, pipeline, output=folder / "parts")
    resumed = textgen.run(pipeline, output=folder / "parts")
    assert (resumed.path / "samples.txt").read_bytes() == (whole.path / "samples.txt").read_bytes()
