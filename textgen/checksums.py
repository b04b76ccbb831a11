"""Files read back against the checksums that were noted when they were written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from textgen.errors import CorruptFileError


def read_checked(path: Path, sha256: str) -> bytes:
    """The bytes of a file. Raises CorruptFileError when the checksum is another, saying what they look like."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptFileError(path, f"it cannot be read: {error.strerror or error}") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        what = _looks_like(data)
        raise CorruptFileError(
            path,
            f"its SHA-256 is {actual[:12]}…, and the run wrote {sha256[:12]}…{what}; restore the file from a copy",
            expected=sha256,
            actual=actual,
        )
    return data


def _looks_like(data: bytes) -> str:
    head = data[:100].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer: run `git lfs pull`)"
    if head.startswith((b"<!doctype", b"<html")):
        return " (it is an HTML page)"
    return " (it is empty)" if not data else ""
