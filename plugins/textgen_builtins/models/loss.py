"""The loss of a model on a text."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from textgen.data import side_by_side
from textgen.protocols import Array, Ids, Model

Floats32 = npt.NDArray[np.float32]

_ROWS: Final = 32
_BLOCK_LOGITS: Final = 1 << 22  # logits held at once: 16 MiB


def mean_loss(
    model: Model, tokens: Ids, vocab_size: int, *, in_order: bool = False
) -> float | None:
    """Mean cross-entropy in nats of `tokens` (N,), from the second on; None if there is none.

    Parts of a long text are read side by side, with some 500 tokens of their past, unless it is
    read `in_order`.
    """
    total, whole = 0.0, (tokens[None], np.array([len(tokens) - 1]))
    for windows, counts in [whole] if in_order else side_by_side(tokens, _ROWS):
        rows, length = len(windows), windows.shape[1] - 1
        decoder, size = model.decoder(rows), max(1, _BLOCK_LOGITS // (vocab_size * rows))
        for start in range(0, length, size):
            block = windows[:, start : min(start + size, length) + 1]
            logs = log_softmax(decoder.score(block[:, :-1]))
            given = np.take_along_axis(logs, block[:, 1:, None], axis=2)[..., 0]
            counted = start + np.arange(given.shape[1]) >= length - counts[:, None]
            total -= float(given[counted].sum(dtype=np.float64))
    return total / (len(tokens) - 1) if len(tokens) > 1 else None


def log_softmax(logits: Array) -> Floats32:
    """Log probabilities (..., V) in NumPy of logits, which may be on a GPU.

    Each row is as if alone.
    """
    values = np.array(
        logits.float().cpu().numpy() if hasattr(logits, "cpu") else logits, np.float32
    )
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(_total(np.exp(values)))[..., None]
    return values


def _total(values: Floats32) -> Floats32:
    """(...) the sums of the rows of `values` (..., V).

    A dot product: NumPy's sum takes four times as long.
    """
    total: Floats32 = np.vecdot(values, _ones(values.shape[-1]))
    return total


@cache
def _ones(size: int) -> Floats32:
    return np.ones(size, np.float32)
