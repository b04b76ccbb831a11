"""Downloads The Time Machine once, into the user's cache."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from pathlib import Path
from typing import Final

from textgen.durable import write_atomic
from textgen.errors import CorpusError
from textgen.files import cache_directory

URL: Final = "http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
_NAME: Final = "timemachine.txt"
_SIZE: Final = 178_979
_SHA256: Final = "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516"
_TIMEOUT_SECONDS: Final = 30


def cached_book() -> Path:
    """The book's file, downloaded if it is missing. Raises CorpusError that says where to put a copy."""
    path = cache_directory() / _NAME
    if path.exists():
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CorpusError(f"cannot be read: {error.strerror or error}", path) from error
        if not _is_book(data):
            raise CorpusError(
                f"it is not the book: {len(data):,} bytes with SHA-256 {hashlib.sha256(data).hexdigest()[:12]}…, "
                f"and it should be {_SIZE:,} bytes with {_SHA256[:12]}…; remove it to download it again",
                path,
            )
        return path
    data = _download(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise CorpusError(
            f"cannot be written: {error.strerror or error}; set TEXTGEN_CACHE_DIR to a folder that can", path
        ) from error
    return path


def _is_book(data: bytes) -> bool:
    return len(data) == _SIZE and hashlib.sha256(data).hexdigest() == _SHA256


def _download(path: Path) -> bytes:
    advice = f"put a copy of the file there (SHA-256 {_SHA256}), or use the corpus 'story' or 'file'"
    try:
        with urllib.request.urlopen(URL, timeout=_TIMEOUT_SECONDS) as response:  # a constant address
            data: bytes = response.read(_SIZE + 1)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(f"{URL} cannot be downloaded ({error}); {advice}", path) from error
    if not _is_book(data):
        raise CorpusError(f"{URL} did not give the book (its size or checksum is wrong); {advice}", path)
    return data
