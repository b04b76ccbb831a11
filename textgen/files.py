"""Files that are written whole or not at all, and read back against their checksums; and where the cache is."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, Final

from textgen.errors import CorruptFileError, RunError
from textgen.opening import (
    DATA_BYTES,
    RECORD_BYTES,
    check_json,
    check_tensors,
    contents_of,
    read_bounded,
    read_tensor_file,
    special,
)
from textgen.protocols import Tensors, Tokenizer

VOCABULARY: Final = "tokenizer.json"
"""The file of a run that holds its tokenizer."""

_MARKS = (  # the longer first: UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds all of it or what it held before, even if the machine stops."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_durably(temporary, data)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one piece."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, limit: int = RECORD_BYTES) -> dict[str, Any]:
    """A JSON object from a file of at most `limit` bytes. Raises CorruptFileError."""
    data = _read(path, limit)
    check_json(path, data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(path, f"it is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CorruptFileError(path, "it does not hold a JSON object")
    return value


def dump_tensors(tensors: Tensors) -> bytes:
    """Arrays by name in the safetensors format; the same arrays give the same bytes."""
    import numpy as np
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}))


def load_tensors(path: Path, data: bytes) -> Tensors:
    """The arrays in safetensors bytes that came from `path`. Raises CorruptFileError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    check_tensors(path, data, len(data))
    try:
        return dict(load(data))
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptFileError(path, f"it is not a safetensors file ({error})") from error


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make a rename in the folder durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def inside(folder: Path, name: str) -> Path:
    """The file or folder `name` of a run directory.

    Raises RunError when a symbolic link leads out of it, CorruptFileError for a pipe or a device.
    """
    path = folder / name
    real, outer = os.path.realpath(path), os.path.realpath(folder)  # Path.resolve raises on links in a circle
    if not Path(real).is_relative_to(outer):
        cause = f"{path} leads out of the run directory; it is not followed"
        raise RunError(f"{cause}: put what it leads to in its place, or remove it", folder)
    if kind := special(path):
        raise CorruptFileError(path, f"it is {kind}, which no run has; remove it")
    return path


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it. Of a symbolic link, the link alone."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def read_checked(path: Path, sha256: str, limit: int = DATA_BYTES) -> bytes:
    """The bytes of a file, at most `limit`. Raises CorruptFileError when their checksum is another."""
    return _checked(path, _read(path, limit), sha256)


def read_tensors(path: Path, sha256: str) -> Tensors:
    """The arrays in a safetensors file, of whatever size. Raises CorruptFileError as `read_checked` does."""
    try:
        data = read_tensor_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return load_tensors(path, _checked(path, data, sha256))


def read_tokenizer(tokenizer: Tokenizer, folder: Path, sha256: str) -> Tokenizer:
    """The tokenizer that is saved in a run directory, made by one of its kind. Raises RunError, CorruptFileError."""
    path = inside(folder, VOCABULARY)
    read_checked(path, sha256)
    state = read_json(path, DATA_BYTES)
    with contents_of(path, "it is not the vocabulary of this tokenizer"):
        return tokenizer.from_dict(state)


def _checked(path: Path, data: bytes, sha256: str) -> bytes:
    """The data, once its checksum is the right one; the error says what else they look like."""
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        cause = f"its SHA-256 is {actual[:12]}…, and the run wrote {sha256[:12]}…{_looks_like(data)}"
        raise CorruptFileError(path, f"{cause}; restore the file from a copy", expected=sha256, actual=actual)
    return data


def encoding_of_mark(beginning: bytes) -> str:
    """ "utf-16" or "utf-32" where a file begins with the mark of one, else ""."""
    return next((name for mark, name in _MARKS if beginning.startswith(mark)), "")


def cache_directory() -> Path:
    """TEXTGEN_CACHE_DIR, or the platform's place for caches."""
    if directory := os.environ.get("TEXTGEN_CACHE_DIR"):
        return Path(directory)
    import platformdirs

    return Path(platformdirs.user_cache_dir("textgen", appauthor=False))


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_bounded(path, limit)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> CorruptFileError:
    return CorruptFileError(path, f"it cannot be read: {error.strerror or error}")


def _looks_like(data: bytes) -> str:
    head = data[:100].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer: run `git lfs pull`)"
    if head.startswith((b"<!doctype", b"<html")):
        return " (it is an HTML page)"
    return " (it is empty)" if not data else ""
