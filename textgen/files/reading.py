"""Files that are read back against their checksums: bytes and JSON."""

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


@contextlib.contextmanager
def safetensors_faults(path: Path) -> Iterator[None]:
    """Make what the library says of the safetensors in a file a CorruptFileError."""
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

                with safetensors_faults(path), safe_open(path, "numpy"):
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


def json_checksum(value: Any) -> str:
    """The SHA-256 of a value as JSON, with sorted keys and nothing between them; what JSON lacks
    counts as its str.
    """
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()
    ).hexdigest()
