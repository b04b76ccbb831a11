"""The built-in components that those under test are tried with, as tables of a pipeline."""

from __future__ import annotations

from typing import Final

from textgen.protocols import Table

FILE: Final[Table] = {"type": "file"}
STORY: Final[Table] = {"type": "story"}
CHARACTERS: Final[Table] = {"type": "char"}
SMALL_NETWORK: Final[Table] = {"type": "rnn", "hidden_size": 8}
DESCENT: Final[Table] = {"type": "sgd", "length": "1 epoch", "batch_size": 16}
FLATTER: Final[Table] = {"temperature": 2.0}
"""An option of requests, by which rare tokens are drawn more often."""
FEW_TOKENS: Final[Table] = {"top_k": 3, "repetition_penalty": 1.3}
"""Options of requests, by which few tokens are left."""
