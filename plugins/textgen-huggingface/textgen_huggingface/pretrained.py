"""Pretrained models on this machine, as arguments of transformers' `from_pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

# Nothing is fetched, nothing is unpickled, and no code that comes with a model is run.
_LOCAL: Final = {"local_files_only": True, "trust_remote_code": False}


def is_gguf(path: Path) -> bool:
    """Whether `path` is a GGUF file, by its first four bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def arguments(path: Path) -> dict[str, Any]:
    """The arguments that name the folder or GGUF file `path`."""
    if is_gguf(path):
        return _LOCAL | {
            "pretrained_model_name_or_path": str(path.parent),
            "gguf_file": path.name,
        }
    return _LOCAL | {"pretrained_model_name_or_path": str(path)}
