"""The package from outside: its pipelines by the `textgen` command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BOOK, PACKAGE

Command = Callable[..., subprocess.CompletedProcess[str]]
WITHOUT_TORCH = """
import runpy, sys
try:
    runpy.run_module("textgen", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
assert "textgen_ngram.counting" in sys.modules
assert "torch" not in sys.modules
"""


def test_the_story_from_pipeline_to_text_without_torch(command: Command, tmp_path: Path) -> None:
    run = command("run", PACKAGE / "story.toml", "--output", tmp_path / "run", program=WITHOUT_TORCH)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout) > 200
    again = command("generate", tmp_path / "run", "--prompt", "The ", "--max-new-tokens", "30")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("The ")


@pytest.mark.skipif(not BOOK.exists(), reason=f"the book is not at {BOOK}")
def test_the_time_machine_in_two_seconds_at_less_than_1_92_bits(command: Command, tmp_path: Path) -> None:
    run = command("run", PACKAGE / "pipeline.toml", "--output", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert metrics["bits_per_character"] == pytest.approx(1.8954, abs=0.0005)
    assert metrics["seconds"] < 2
