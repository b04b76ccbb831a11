"""What the tests of training by gradient share: small runs, and what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pipeline(trainer: dict[str, Any], **model: Any) -> dict[str, Any]:
    """A run of a few seconds at most."""
    return {
        "device": "cpu",
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "cell": "gru", "hidden_size": 12, "dropout": 0.2, **model},
        "trainer": {
            "type": "adamw",
            "length": "30 steps",
            "batch_size": 8,
            "order": "streams",
            **trainer,
        },
        "observer": [],
        "generate": {"max_new_tokens": 5},
    }


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()
