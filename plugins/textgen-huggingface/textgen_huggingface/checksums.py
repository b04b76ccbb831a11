"""The SHA-256 of files of weights."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def checksum(file: Path) -> str:
    """SHA-256.

    Weights can be gigabytes, so a file is read once unless its status has changed. Its size and the
    time of its content can be those of another file; the inode and the time of its status are not.
    """
    status = file.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return _checksum_of(file, status.st_ino, status.st_size, times)


@functools.lru_cache(maxsize=64)
def _checksum_of(file: Path, inode: int, size: int, times: tuple[int, int]) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
