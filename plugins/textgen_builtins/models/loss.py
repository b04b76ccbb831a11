"""The loss of a model on a text."""

from __future__ import annotations

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
    """Log probabilities (..., V) in NumPy of logits, which may be on a GPU."""
    values = np.array(logits.cpu() if hasattr(logits, "cpu") else logits, np.float32)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values
