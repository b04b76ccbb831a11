"""Arrays in safetensors files, such as the weights of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from textgen.errors import CorruptFileError
from textgen.files.reading import read_bytes, safetensors_faults
from textgen.protocols import Tensors

WEIGHTS: Final = "model.safetensors"
"""The file of a run, or of a checkpoint, that holds its weights."""


def dump_tensors(tensors: Tensors) -> bytes:
    """Arrays by name in the safetensors format; the same arrays give the same bytes."""
    import numpy as np
    from safetensors.numpy import save

    return save({name: np.asarray(array, order="C") for name, array in tensors.items()})


def load_tensors(path: Path, data: bytes) -> Tensors:
    """The arrays in safetensors bytes that came from `path`. Raises CorruptFileError."""
    from safetensors.numpy import load

    with safetensors_faults(path):
        return dict(load(data))


def read_tensors(path: Path, sha256: str) -> Tensors:
    """The arrays in a safetensors file, of whatever size. Raises CorruptFileError, RunError."""
    return load_tensors(path, read_bytes(path, sha256, tensors=True))


def read_weights(path: Path, sha256: str) -> Tensors:
    """The weights in a safetensors file; float16 becomes float32.

    NaN among them is damage: what computes with them could blame no file.
    """
    import numpy as np

    tensors = {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in read_tensors(path, sha256).items()
    }
    if name := with_nan(tensors):
        raise CorruptFileError(path, f"{name} has values that are not numbers (NaN)")
    return tensors


def with_nan(tensors: Tensors) -> str:
    """The name of an array with values that are not numbers, or ""."""
    import numpy as np

    for name, array in tensors.items():  # whose minimum needs no copy of it
        if array.dtype.kind == "f" and array.size and np.isnan(array.min()):
            return name
    return ""
