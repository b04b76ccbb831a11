"""Reading of files of bytes and JSON, compared with their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from textgen.errors import CorruptFileError, RunError
from textgen.files.opening import opened

MAX_BYTES: Final = 64_000_000
"""Maximum size of a file in bytes. Larger tensor files are read once their header was checked."""


def read_json(path: Path, sha256: str = "") -> dict[str, Any]:
    """The JSON object in a file. Its checksum must be `sha256`, unless that is empty.

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


@contextlib.contextmanager
def safetensors_faults(path: Path) -> Iterator[None]:
    """Turn errors of the safetensors library into a CorruptFileError for `path`."""
    from safetensors import SafetensorError

    try:
        yield
    except KeyError as error:  # a type that NumPy has not
        cause = f"it holds numbers of type {error.args[0]}; convert them to F32"
        raise CorruptFileError(path, cause) from error
    except (SafetensorError, ValueError) as error:
        raise CorruptFileError(path, f"it is not a safetensors file ({error})") from error


def read_bytes(
    path: Path, sha256: str = "", *, tensors: bool = False, max_bytes: int = MAX_BYTES
) -> bytes:
    """The bytes of a regular file.

    In a folder that somebody else may have made, get `path` from textgen.files.opening.inside,
    which follows no links out of it.

    sha256     the checksum that the file must have; "" for any
    tensors    whether it is a safetensors file: a large one must have the size that its header says
    max_bytes  of any other file

    Raises CorruptFileError if the file is missing, too large or has another checksum, and RunError
    if the system cannot read it.
    """
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes and tensors:
                from safetensors import safe_open

                with safetensors_faults(path), safe_open(path, "numpy"):
                    pass
            elif size > max_bytes:
                cause = f"it has {size:,} bytes, and such a file has at most {max_bytes:,}"
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


def json_checksum(value: Any) -> str:
    """The SHA-256 of a value as JSON with sorted keys and no spaces.

    Values of other types than JSON has are written as `str` gives them.
    """
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()
    ).hexdigest()
