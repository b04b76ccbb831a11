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
from typing import Any

from textgen.errors import CorruptFileError, RunError
from textgen.protocols import Tensors

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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CorruptFileError."""
    data = _read(path)
    try:
        value = json.loads(data)
    except ValueError as error:
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
    """The file `name` of a run directory. Raises RunError when a symbolic link leads out of it."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        cause = f"{path} leads out of the run directory; it is not followed"
        raise RunError(f"{cause}: put what it leads to in its place, or remove it", folder)
    return path


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it. Of a symbolic link, the link alone."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def folder_size(folder: Path) -> tuple[int, float]:
    """Bytes of the files under a folder, each counted once, and when the newest was written. Links are not followed."""
    seen, total, newest = set(), 0, 0.0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(parent, name))
            except OSError:  # removed meanwhile
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_size
                newest = max(newest, found.st_mtime)
    return total, newest


def read_checked(path: Path, sha256: str) -> bytes:
    """The bytes of a file. Raises CorruptFileError when the checksum is another, saying what they look like."""
    data = _read(path)
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptFileError(path, f"it cannot be read: {error.strerror or error}") from error


def _looks_like(data: bytes) -> str:
    head = data[:100].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer: run `git lfs pull`)"
    if head.startswith((b"<!doctype", b"<html")):
        return " (it is an HTML page)"
    return " (it is empty)" if not data else ""
