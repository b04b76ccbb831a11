"""A text and a pipeline that trains in a second, its command as a process, and what is left in its folder."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from commands import HEEDING_SIGINT, environment

import textgen

TEXT = "".join(f"Once {n} ravens flew over {n * n % 7} hills, and none came back.\n" for n in range(60))
PIPELINE = """
seed = 3
device = "cpu"
[corpus]
type = "file"
path = "text.txt"
[tokenizer]
type = "char"
[data]
window_length = 16
[model]
type = "rnn"
cell = "gru"
hidden_size = 12
[trainer]
type = "adamw"
epochs = 2
batch_size = 32
[generate]
prompt = "Once"
max_new_tokens = 40
"""


def prepare(folder: Path) -> Path:
    """A text and a pipeline for it in `folder`."""
    (folder / "text.txt").write_text(TEXT)
    (folder / "p.toml").write_text(PIPELINE)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """The checksum of every file under `folder`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def copied(trained: tuple[Path, Any], folder: Path) -> Path:
    """A copy of the finished run, to spoil, in `folder`."""
    import shutil

    shutil.copytree(trained[0] / "runs", folder / "runs")
    return folder / "runs/p"


def text_of(run: Path) -> str:
    return textgen.load(run).generate("Once", max_new_tokens=30).text


TRAINERS = {
    "sgd": {"type": "sgd", "momentum": 0.9, "learning_rate": 0.5},
    "adamw": {"type": "adamw", "warmup_steps": 3},
}


def tables(folder: Path, trainer: str, order: str, **model: Any) -> dict[str, Any]:
    return {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(folder / "text.txt")},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8, "dropout": 0.3, **model},
        "trainer": {**TRAINERS[trainer], "epochs": 2, "batch_size": 48, "order": order, "evaluate_every": 2},
        "observer": [{"type": "metrics"}, {"type": "samples", "every": 2, "max_new_tokens": 10}],
        "generate": {"max_new_tokens": 40, "n": 2},
    }


@contextlib.contextmanager
def running(*arguments: str, folder: Path, site: Iterable[Path] = ()) -> Iterator[subprocess.Popen[str]]:
    """`textgen ARGUMENTS` with a pipe to each of its streams; ended at the end, whatever has happened."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING_SIGINT, *arguments],
        cwd=folder,
        env=environment(site),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], phrase: str) -> str:
    """The first line on stderr that holds `phrase`."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if phrase in line:
            return line
    raise AssertionError(f"no {phrase!r} in {seen}")


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
