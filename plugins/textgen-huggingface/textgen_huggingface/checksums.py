"""The SHA-256 of files of weights."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def checksum(file: Path) -> str:
    """SHA-256.

    Weights can be gigabytes, so a file that is unchanged by its size and time is read once.
    """
    status = file.stat()
    return _checksum_of(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _checksum_of(file: Path, size: int, time: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
