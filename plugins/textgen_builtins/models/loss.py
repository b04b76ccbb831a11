"""The loss of a model on a text."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from textgen.protocols import Array, Ids, Model

Floats32 = npt.NDArray[np.float32]

_BLOCK: Final = 1 << 22  # logits held at once: 16 MiB


def mean_loss(model: Model, tokens: Ids, vocab_size: int) -> float | None:
    """Mean cross-entropy in nats of `tokens` (N,), read as one stream, from the second on; None if there is none."""
    if len(tokens) < 2:
        return None
    decoder, total, size = model.decoder(1), 0.0, max(1, _BLOCK // vocab_size)
    for start in range(0, len(tokens) - 1, size):
        block = np.asarray(tokens[start : start + size + 1], np.int64)
        logs = log_softmax(decoder.score(block[None, :-1]))[0]
        total -= float(logs[np.arange(len(logs)), block[1:]].sum(dtype=np.float64))
    return total / (len(tokens) - 1)


def log_softmax(logits: Array) -> Floats32:
    """Log probabilities (..., V) in NumPy of logits, which may be on a GPU. Each row is as if alone."""
    values = np.array(logits.float().cpu().numpy() if hasattr(logits, "cpu") else logits, np.float32)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(_total(np.exp(values)))[..., None]
    return values


def log_softmax_of_one(logits: Floats32) -> None:
    """`log_softmax` of one row (V,), in place and in a third of the time."""
    logits -= logits[logits.argmax()]
    logits -= np.log(_total(np.exp(logits)))


def _total(values: Floats32) -> Floats32:
    """(...) the sums of the rows of `values` (..., V). A dot product: NumPy's sum takes four times as long."""
    total: Floats32 = np.vecdot(values, _ones(values.shape[-1]))
    return total


@cache
def _ones(size: int) -> Floats32:
    return np.ones(size, np.float32)
