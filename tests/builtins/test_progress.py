"""What the observer `progress` writes."""

from __future__ import annotations

import io
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen import Engine
from textgen.events import Evaluation, StepDone
from textgen_builtins.observers import progress

RNN = ({"type": "rnn", "hidden_size": 8}, {"type": "sgd", "length": "3 steps"})
COUNTS = ({"type": "ngram", "order": 3}, {"type": "count"})
MIXTURE = (
    {"type": "mixture", "first": COUNTS[0], "second": {"type": "ngram", "order": 2}},
    {"type": "mixture", "first": COUNTS[1], "second": COUNTS[1]},
)


@pytest.mark.parametrize(("parts", "counted"), [(RNN, True), (COUNTS, False), (MIXTURE, False)])
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
    """A short run has evaluated once, for a second of its few, when it first says how long it takes."""
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
