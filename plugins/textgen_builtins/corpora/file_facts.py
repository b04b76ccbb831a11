"""What the name, the size and the content of a file say of it."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Final

HTML: Final = (".html", ".htm", ".xhtml")
OFFICE: Final = (".docx", ".odt", ".epub", ".rtf")
TEXTS: Final = (".txt", ".text", ".md", ".markdown", ".rst", *HTML, *OFFICE)
JSON_LINES: Final = (".jsonl", ".ndjson")
COMPRESSED: Final = (".gz", ".zst")


def inner_suffix(name: str | Path) -> str:
    """The suffix of a file in small letters, without that of its compression: ".jsonl" of
    A.JSONL.GZ.
    """
    path = Path(name)
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def checksum(path: Path) -> str:
    """SHA-256 of a file; what is unchanged by its size and time is read once. Raises OSError."""
    status = path.stat()
    return _checksum_of(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _checksum_of(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
