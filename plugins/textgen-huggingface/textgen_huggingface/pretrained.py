"""Pretrained models on this machine: folders of safetensors, and GGUF files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from textgen_huggingface.quiet import quietly

# Nothing is fetched, nothing is unpickled, and no code that comes with a model is run.
_LOCAL: Final = {"local_files_only": True, "trust_remote_code": False}


def is_gguf(path: Path) -> bool:
    """Whether `path` is a GGUF file, by its first four bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def arguments(path: Path) -> dict[str, Any]:
    """The arguments of `from_pretrained` that name the folder or GGUF file `path`."""
    if is_gguf(path):
        return _LOCAL | {
            "pretrained_model_name_or_path": str(path.parent),
            "gguf_file": path.name,
        }
    return _LOCAL | {"pretrained_model_name_or_path": str(path)}


def weight_arguments(path: Path) -> dict[str, Any]:
    """The same for a model, with safetensors or plain weights alone."""
    import transformers

    plain: dict[str, Any] = {"use_safetensors": True}
    if is_gguf(path) and hasattr(transformers, "GgufConfig"):  # else they are always made plain
        plain["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return arguments(path) | plain


@contextmanager
def reading() -> Iterator[None]:
    """In the block, transformers is quiet, and reads the header of a GGUF file once, not each time
    that it asks for config, tokenizer or a weight: of SmolLM2, 6 seconds in place of 17.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as loader

    names = functools.cache(gguf.get_tensor_name_map)
    with (
        quietly(),
        patch.object(loader, "tqdm", lambda items, **_: items),  # no setting disables its bar
        patch.object(gguf, "get_tensor_name_map", names),
        patch.object(gguf, "GGUFReader", _shared),
    ):
        yield


def forget() -> None:
    """Free what was read of a GGUF file."""
    _reader.cache_clear()


def _shared(path: str, *_: Any) -> Any:
    status = Path(path).stat()
    return _reader(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _reader(path: str, size: int, time: int) -> Any:
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(path)
