"""Small texts, n-gram models of them, and pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from textgen import Engine
from textgen.data import Dataset
from textgen.protocols import Model, TrainingContext
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel

TEXT = "".join(Engine().read_corpus({"type": "story"}))[:20_000]
HELD_OUT = TEXT[-2_000:]
CONTEXT = TrainingContext(seed=0, device="cpu")


def count(
    tokens: Any, vocab_size: int, order: int, *, trainer: CountTrainer | None = None, **options: Any
) -> NgramModel:
    """An n-gram model of all but the last tenth of `tokens`."""
    model = NgramModel(order, vocab_size, **options)
    for _ in (trainer or CountTrainer()).train(model, dataset(tokens, vocab_size), CONTEXT):
        pass
    return model


def assert_rows_agree(made: Model) -> None:
    """A row is the same alone, token by token, scored in one go, and in any batch: by a model of
    TEXT's characters.
    """
    fed = np.array([[sorted(set(TEXT)).index(c) for c in TEXT[i : i + 70]] for i in (0, 300, 777)])
    scored, together = made.decoder(3).score(fed), made.decoder(3)
    np.testing.assert_array_equal(
        scored, np.concatenate([made.decoder(1).score(row[None]) for row in fed])
    )
    alone = [made.decoder(1) for _ in fed]
    for t in range(fed.shape[1]):
        rows = together.extend(fed[:, t : t + 1])
        np.testing.assert_array_equal(rows, scored[:, t])
        for i, decoder in enumerate(alone):
            np.testing.assert_array_equal(decoder.extend(fed[i : i + 1, t : t + 1])[0], rows[i])
    fork = made.decoder(1)
    fork.write_state({name: array[[2, 0]] for name, array in together.read_state().items()})
    both = np.concatenate([fed[[2, 0]], fed[:2, :1]], axis=1)
    np.testing.assert_array_equal(fork.extend(fed[:2, :1]), made.decoder(2).score(both)[:, -1])


def dataset(tokens: Any, vocab_size: int) -> Dataset:
    """A data set with the last tenth held out."""
    ids = np.asarray(tokens)
    cut = len(ids) - len(ids) // 10
    return Dataset(
        training=ids[:cut],
        validation=ids[cut:],
        vocab_size=vocab_size,
        window_length=1,
        window_stride=1,
    )


def pipeline(
    folder: Path, model: dict[str, Any], trainer: dict[str, Any], **tables: Any
) -> dict[str, Any]:
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
