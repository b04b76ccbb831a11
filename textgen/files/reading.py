"""Files that are read back against their checksums, and what they contain."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from textgen.errors import CorruptFileError, RunError, UsageError
from textgen.files.opening import inside, opened, translating_corruption
from textgen.protocols import Table, Tensors, Tokenizer

VOCABULARY: Final = "tokenizer.json"
"""The file of a run that holds its tokenizer."""
WEIGHTS: Final = "model.safetensors"
"""The file of a run, or of a checkpoint, that holds its weights."""

LARGEST: Final = 64_000_000
"""Bytes of a file that are read at most. Of tensors that are more, the header is checked first."""


def read_json(path: Path, sha256: str = "") -> dict[str, Any]:
    """A JSON object from a file, whose checksum is `sha256` if that is given.

    Raises CorruptFileError, RunError.
    """
    data = read_bytes(path, sha256)
    try:
        return parse_json(data)
    except ValueError as error:
        raise CorruptFileError(path, str(error)) from error


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError("it does not hold a JSON object")
    return value


def dump_tensors(tensors: Tensors) -> bytes:
    """Arrays by name in the safetensors format; the same arrays give the same bytes."""
    import numpy as np
    from safetensors.numpy import save

    return save({name: np.asarray(array, order="C") for name, array in tensors.items()})


def load_tensors(path: Path, data: bytes) -> Tensors:
    """The arrays in safetensors bytes that came from `path`. Raises CorruptFileError."""
    from safetensors.numpy import load

    with _safetensors(path):
        return dict(load(data))


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except KeyError as error:  # a type that NumPy has not
        cause = f"it holds numbers of type {error.args[0]}; convert them to F32"
        raise CorruptFileError(path, cause) from error
    except (SafetensorError, ValueError) as error:
        raise CorruptFileError(path, f"it is not a safetensors file ({error})") from error


def read_bytes(
    path: Path, sha256: str = "", *, tensors: bool = False, most: int = LARGEST
) -> bytes:
    """The bytes of a regular file, whose checksum is `sha256` if that is given. For a file of a
    folder that somebody else may have made, `path` comes from `inside`.

    Raises CorruptFileError, also for more than `most` bytes; of tensors, if the size is not what
    the header says. Raises RunError if the system refuses to read it.
    """
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most and tensors:
                from safetensors import safe_open

                with _safetensors(path), safe_open(path, "numpy"):
                    pass
            elif size > most:
                cause = f"it has {size:,} bytes, and such a file has at most {most:,}"
                raise CorruptFileError(path, cause)
            data = file.read(size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptFileError(path, f"it cannot be read: {error.strerror}") from error
    except OSError as error:  # which says nothing about the content, and need not last
        raise RunError(f"{path}: it cannot be read: {error.strerror or error}", path) from error
    if sha256 and (actual := hashlib.sha256(data).hexdigest()) != sha256:
        cause = f"its SHA-256 is {actual[:12]}…, and the run wrote {sha256[:12]}…"
        if data.startswith(b"version https://git-lfs"):
            cause += "; it is a Git LFS pointer: run `git lfs pull`"
        raise CorruptFileError(path, cause)
    return data


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


def dump_vocabulary(tokenizer: Tokenizer) -> bytes:
    """The bytes of tokenizer.json. Raises UsageError for more than can be read back."""
    data = (json.dumps(tokenizer.to_dict(), ensure_ascii=False) + "\n").encode()
    if len(data) > LARGEST:
        cause = f"the vocabulary has {len(data):,} bytes, and can have {LARGEST:,}"
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


def file_states(folder: Path) -> Iterator[os.stat_result]:
    """The state of each file under a folder. Links are not followed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                yield os.lstat(os.path.join(parent, name))


def json_checksum(value: Any) -> str:
    """The SHA-256 of a value as JSON, with sorted keys and nothing between them; what JSON lacks
    counts as its str.
    """
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()
    ).hexdigest()


def path_of(value: Any, argument: str) -> Path:
    """A path that a caller gave. Raises UsageError for what cannot be one."""
    if not isinstance(value, str | Path) or "\0" in str(value) or not str(value):
        raise UsageError("expected a path", argument=argument, value=value)
    return Path(value)
