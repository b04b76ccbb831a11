"""A text and a pipeline that trains in a second, and what is left in its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import textgen

TEXT = "".join(
    f"Once {n} ravens flew over {n * n % 7} hills, and none came back.\n" for n in range(60)
)
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
length = "2 epochs"
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
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


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
        "trainer": {
            **TRAINERS[trainer],
            "length": "2 epochs",
            "batch_size": 48,
            "order": order,
            "evaluate_every": 2,
        },
        "observer": [{"type": "metrics"}, {"type": "samples", "every": 2, "max_new_tokens": 10}],
        "generate": {"max_new_tokens": 40, "n": 2},
    }


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
