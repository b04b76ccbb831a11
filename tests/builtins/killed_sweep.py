"""A sweep that is killed in the middle, with all its processes, and run again.

python tests/builtins/killed_sweep.py                 eight trials of a network, two at a time, killed three times
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import textgen

SETTINGS = ("trainer.learning_rate=3e-3,1e-2", "model.hidden_size=16,24", "trainer.batch_size=8,16")
PIPELINE = """
device = "cpu"
threads = 1
corpus = {type = "story"}
tokenizer = {type = "char"}
data = {window_length = 32}
model = {type = "rnn", cell = "gru"}
trainer = {type = "adamw", steps = 60, evaluate_every = 10, workers = 1, precision = "float32"}
checkpoint = {seconds = 0}
"""


def command(pipeline: Path, settings: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """The sweep, two at a time, as JSON."""
    sets = [word for setting in settings for word in ("--set", setting)]
    return [
        sys.executable,
        "-m",
        "textgen",
        *options,
        "sweep",
        str(pipeline),
        *sets,
        "--jobs",
        "2",
        "--json",
    ]


def kill_in_the_middle(arguments: list[str], folder: Path, is_time: Callable[[], bool]) -> None:
    """Start the command, and kill it and every process that it started, at once."""
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not is_time():
            assert process.poll() is None, "it was over before it was to be killed"
            time.sleep(0.01)
    finally:
        for pid in [process.pid, *children(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def children(parent: int) -> list[int]:
    """Processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def finished(folder: Path) -> dict[str, float]:
    """The trials in a folder that are finished, and when each was last evaluated."""
    return dict(_finished(folder))


def _finished(folder: Path) -> Iterator[tuple[str, float]]:
    for path in folder.glob("*/run.json"):
        if textgen.summarize(path.parent).status == "finished":
            yield path.parent.name, path.with_name("metrics.jsonl").stat().st_mtime_ns


def run_again(arguments: list[str], folder: Path) -> dict[str, Any]:
    """What the command says in the end."""
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Kill the sweep of a network three times, each time after two more trials, and compare with single runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "p.toml").write_text(PIPELINE)
        arguments = command(folder / "p.toml", SETTINGS)
        runs = folder / "runs/p-sweep"
        seen: dict[str, float] = {}
        for number in (2, 4, 6):
            kill_in_the_middle(
                arguments, folder, lambda number=number: len(finished(runs)) >= number
            )
            now = finished(runs)
            assert seen.items() <= now.items(), "a trial was trained twice"
            seen = now
            print(f"killed when {len(seen)} of 8 were finished")
        found = run_again(arguments, folder)
        assert seen.items() <= finished(runs).items(), "a trial was trained twice"
        for row in found["trials"]:
            alone = textgen.run(
                folder / "p.toml", row["settings"], output=folder / "alone" / row["name"]
            )
            summary = textgen.summarize(alone.path)
            assert (row["loss"], row["best_step"], row["step"]) == (
                summary.best_loss,
                summary.best_step,
                summary.step,
            )
            print(f"{row['name']}: {row['loss']:.6f}, as alone")


if __name__ == "__main__":
    main()
