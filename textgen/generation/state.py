"""Where a generation stands, as a small file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import CorruptFileError, RunError
from textgen.files import dump_tensors, load_tensors, write_atomic
from textgen.protocols import Tensors


@attrs.frozen(eq=False)
class GenerationState:
    """Where a generation stands: all that continues it exactly, on any machine that has the run.

    arrays  the decoder's state and the history, each for one sequence
    values  the seed, the position in its random numbers, the sampling arguments, the ids not fed yet, the last ids, the
            text that a stop text may have begun with, and the checksum of the weights
    """

    arrays: Tensors = attrs.field(repr=False)
    values: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write it to a file, in one piece: safetensors, with `values` as JSON bytes. Raises RunError."""
        encoded = np.frombuffer(json.dumps(self.values).encode(), np.uint8)
        kept = {**self.arrays, "values": encoded}
        data = dump_tensors({**kept, "checksum": _checksum(kept)})
        try:
            write_atomic(Path(path), data)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}", Path(path)) from error

    @classmethod
    def load(cls, path: str | Path) -> GenerationState:
        """Read what `save` wrote. Raises RunError, which is CorruptFileError for any other file, and a changed one."""
        path = Path(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}", path) from error
        try:
            arrays = load_tensors(path, data)
            checksum = arrays.pop("checksum")
            if not np.array_equal(checksum, _checksum(arrays)):
                raise CorruptFileError(path, "it is not as it was saved: its checksum differs")
            values = json.loads(arrays.pop("values").tobytes())
        except (KeyError, ValueError) as error:
            raise CorruptFileError(path, "it holds no state of a generation") from error
        return cls(arrays, values)


def _checksum(arrays: Tensors) -> npt.NDArray[np.uint8]:
    """The SHA-256 of arrays, their names and dtypes: safetensors itself accepts a flipped byte."""
    return np.frombuffer(hashlib.sha256(dump_tensors(arrays)).digest(), np.uint8)
