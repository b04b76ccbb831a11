"""A run that was interrupted ends as if it never had been."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
from small_run import TEXT, flip, tables, tree

import textgen
from textgen.events import StepDone


def measured(run: textgen.Run) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, but for what the clock says."""
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    clock = {"seconds", "characters_per_second"}
    return [{key: value for key, value in row.items() if key not in clock} for row in rows]


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
            assert json.loads((folder / "parts/run.json").read_text())["status"] == "unfinished"
    steps = json.loads((folder / "whole/run.json").read_text())["step"]
    assert interruptions == steps
    assert steps >= 6
    assert (whole.outcome, resumed.outcome) == ("trained", "resumed")
    assert measured(resumed) == measured(whole)
    assert resumed.generations == whole.generations
    same = ("model.safetensors", "tokenizer.json", "samples.txt", "trainer.safetensors")
    parts, complete = (
        {name: found for name, found in tree(run.path).items() if name.endswith(same)}
        for run in (resumed, whole)
    )
    assert parts == complete


def test_checkpoints_change_nothing_whenever_they_are_written(folder: Path) -> None:
    """Between a step and its evaluation too, which fits the gate of a mixture anew."""
    pipeline = tables(folder, "adamw", "shuffled")
    pipeline |= {
        "model": {"type": "mixture", "first": pipeline["model"]},
        "trainer": {"type": "mixture", "first": pipeline["trainer"]},
    }
    weights = []
    for seconds in (0.0, 1000.0):
        run = textgen.run(
            {**pipeline, "checkpoint": {"seconds": seconds}}, output=folder / str(seconds)
        )
        weights.append(tree(run.path)["model.safetensors"])
    assert weights[0] == weights[1]


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

    class Watch:
        def observe(self, event: object) -> None:
            if isinstance(event, StepDone):
                now[0] += 1
                found = sorted((folder / "run/checkpoints").iterdir())
                if (steps := [int(path.name[5:]) for path in found]) not in ([], *kept[-1:]):
                    kept.append(steps)

    pipeline = tables(folder, "sgd", "shuffled")
    pipeline["trainer"] |= {"length": "20 epochs", "evaluate_every": 30, "learning_rate": 1e-3}
    pipeline["checkpoint"] = {"seconds": 20}
    textgen.run(pipeline, output=folder / "run", observers=[Watch()])
    assert kept == [[20], [30], [30, 50], [60]]


def test_samples_that_look_like_headings_are_kept(folder: Path) -> None:
    (folder / "text.txt").write_text(TEXT + "=== step by step ===\n")
    pipeline = tables(folder, "sgd", "shuffled")
    pipeline["observer"][1]["prompt"] = "=== step by step ===\n"
    whole = textgen.run(pipeline, output=folder / "whole")
    steps = iter(range(100))
    with pytest.raises(textgen.Interrupted):
        textgen.run(pipeline, output=folder / "parts", cancelled=lambda: next(steps) == 5)
    resumed = textgen.run(pipeline, output=folder / "parts")
    assert (resumed.path / "samples.txt").read_bytes() == (whole.path / "samples.txt").read_bytes()


@pytest.mark.fault(4)
def test_a_run_whose_checkpoints_are_all_spoilt_does_not_start_again(folder: Path) -> None:
    pipeline = tables(folder, "sgd", "shuffled")
    asked: list[None] = []

    def after_the_third() -> bool:
        asked.append(None)
        return len(asked) > 3

    with pytest.raises(textgen.Interrupted):
        textgen.run(pipeline, output=folder / "run", cancelled=after_the_third)
    for path in (folder / "run/checkpoints").glob("step-*/model.safetensors"):
        path.write_bytes(flip(path.read_bytes()))
    before = tree(folder / "run")
    with pytest.raises(
        textgen.CorruptFileError,
        match=r"no checkpoint of this run is intact.*overwrite starts again",
    ):
        textgen.run(pipeline, output=folder / "run")
    assert {n: c for n, c in tree(folder / "run").items() if "checkpoints" in n} == (
        {n: c for n, c in before.items() if "checkpoints" in n}
    )
    textgen.run(pipeline, output=folder / "run", overwrite=True)
