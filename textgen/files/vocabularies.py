"""The file of a run that holds its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from textgen.errors import UsageError
from textgen.files.opening import inside, translating_corruption
from textgen.files.reading import MAX_BYTES, read_json
from textgen.protocols import Table, Tokenizer

VOCABULARY: Final = "tokenizer.json"
"""The file of a run that holds its tokenizer."""


def dump_vocabulary(tokenizer: Tokenizer) -> bytes:
    """The bytes of tokenizer.json. Raises UsageError for more than can be read back."""
    data = (json.dumps(tokenizer.to_dict(), ensure_ascii=False) + "\n").encode()
    if len(data) > MAX_BYTES:
        cause = f"the vocabulary has {len(data):,} bytes, and can have {MAX_BYTES:,}"
        raise UsageError(f"{cause}; choose a smaller one", argument="tokenizer")
    return data


def read_tokenizer(tokenizer: Tokenizer, folder: Path, sha256: str) -> Tokenizer:
    """The tokenizer that is saved in a run directory, made by one of its kind.

    Raises RunError, CorruptFileError.
    """
    path = inside(folder, VOCABULARY)
    return load_vocabulary(tokenizer, read_json(path, sha256), path)


def load_vocabulary(tokenizer: Tokenizer, state: Table, path: Path) -> Tokenizer:
    """A tokenizer with the vocabulary in the file `path`.

    Raises CorruptFileError if it refuses that.
    """
    with translating_corruption(path, "its tokenizer refuses it"):
        return tokenizer.from_dict(state)
