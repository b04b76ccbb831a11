"""Where a generation stands, as a small file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import CorruptFileError
from textgen.protocols import Tensors
from textgen.rundir import dump_tensors, load_tensors, write_atomic


@attrs.frozen(eq=False)
class GenerationState:
    """Where a generation stands: all that continues it exactly, on any machine that has the run.

    arrays  the decoder's state and the history, each for one sequence
    values  the seed, the position in its random numbers, the sampling arguments, the ids not fed yet, the last ids, and
            the checksum of the weights
    """

    arrays: Tensors = attrs.field(repr=False)
    values: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write it to a file, in one piece: safetensors, with `values` as JSON bytes."""
        encoded = np.frombuffer(json.dumps(self.values).encode(), np.uint8)
        kept = {**self.arrays, "values": encoded}
        write_atomic(Path(path), dump_tensors({**kept, "checksum": _checksum(kept)}))

    @classmethod
    def load(cls, path: str | Path) -> GenerationState:
        """Read what `save` wrote. Raises CorruptFileError for any other file, and for one that changed since."""
        path = Path(path)
        try:
            arrays = load_tensors(path, path.read_bytes())
            checksum = arrays.pop("checksum")
            if not np.array_equal(checksum, _checksum(arrays)):
                raise CorruptFileError(path, "it is not as it was saved: its checksum differs")
            values = json.loads(arrays.pop("values").tobytes())
        except OSError as error:
            raise CorruptFileError(path, f"it cannot be read: {error.strerror or error}") from error
        except (KeyError, ValueError) as error:
            raise CorruptFileError(path, "it holds no state of a generation") from error
        return cls(arrays, values)


def _checksum(arrays: Tensors) -> npt.NDArray[np.uint8]:
    """The SHA-256 of arrays, their names and dtypes: safetensors itself accepts a flipped byte."""
    return np.frombuffer(hashlib.sha256(dump_tensors(arrays)).digest(), np.uint8)
