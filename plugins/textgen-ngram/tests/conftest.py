"""Small texts, trained runs, and the command as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textgen_ngram.counting import CountTrainer
from textgen_ngram.ngram_model import NgramModel

from textgen import Engine, Run
from textgen.data import Dataset
from textgen.protocols import TrainingContext

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks here are too small for threads to help

PACKAGE = Path(__file__).parents[1]
STORY = "".join(Engine().read_corpus({"type": "story"}))
TEXT = STORY[:20_000]
HELD_OUT = TEXT[-2_000:]
BOOK = PACKAGE.parents[1] / "../shared/data/timemachine.txt"


def count(tokens: Any, vocab_size: int, order: int) -> NgramModel:
    """An n-gram model of a few tokens."""
    model = NgramModel(order, vocab_size)
    for _ in CountTrainer().train(model, dataset(tokens, vocab_size), TrainingContext(seed=0, device="cpu")):
        pass
    return model


def dataset(tokens: Any, vocab_size: int) -> Dataset:
    """A data set with the last tenth held out."""
    ids = np.asarray(tokens)
    cut = len(ids) - len(ids) // 10
    return Dataset(training=ids[:cut], validation=ids[cut:], vocab_size=vocab_size, window_length=1, window_stride=1)


def pipeline(folder: Path, model: dict[str, Any], trainer: dict[str, Any], **tables: Any) -> dict[str, Any]:
    """A pipeline on TEXT, its last tenth held out."""
    path = folder / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(path)},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 32},
        "model": model,
        "trainer": trainer,
        "generate": {"prompt": "", "max_new_tokens": 20},
        "observer": [],
        **tables,
    }


@pytest.fixture(scope="session")
def ngram_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An n-gram model of TEXT."""
    folder = tmp_path_factory.mktemp("ngram")
    return Engine().run(pipeline(folder, {"type": "ngram", "order": 3}, {"type": "count"}), output=folder / "run")


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `textgen` as a process, in a folder of the session and with the book in its cache where it is at hand."""
    folder = tmp_path_factory.mktemp("command")
    cache = folder / "cache"
    cache.mkdir()
    if BOOK.exists():
        shutil.copy(BOOK, cache / "timemachine.txt")

    def run(*arguments: str | Path, program: str = "") -> subprocess.CompletedProcess[str]:
        start = ["-c", program] if program else ["-m", "textgen"]
        return subprocess.run(  # this very interpreter
            [sys.executable, *start, *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "TEXTGEN_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run
