"""Downloads The Time Machine once, into the user's cache."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Final, TextIO

from textgen.errors import CorpusError
from textgen.files.durable import sync_folder
from textgen.files.reading import cache_directory
from textgen_builtins.corpora.downloads import download

URL: Final = "http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
_NAME: Final = "timemachine.txt"
_SIZE: Final = 178_979
_SHA256: Final = "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516"


def cached_book(*, console: TextIO | None, offline: bool) -> Path:
    """The book's file, downloaded if it is missing. Raises CorpusError that says where to put a copy."""
    path = cache_directory() / _NAME
    advice = (
        f"put a copy of the file there (SHA-256 {_SHA256}), or use the corpus 'story' or 'file'"
    )
    try:
        if path.exists():
            _check(path)
            return path
        if offline:
            raise CorpusError(f"it is not there, and only a run fetches it; {advice}", path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            if download(URL, temporary, console=console).sha256 != _SHA256:
                raise CorpusError(f"{URL} did not give the book: its checksum is wrong")
            temporary.replace(path)
            sync_folder(path.parent)
        except CorpusError as error:
            raise CorpusError(f"{error}; {advice}", path) from error
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        cause = f"cannot be read or written: {error.strerror or error}"
        raise CorpusError(f"{cause}; set TEXTGEN_CACHE_DIR to a folder that can", path) from error
    return path


def _check(path: Path) -> None:
    data = path.read_bytes()
    actual = hashlib.sha256(data).hexdigest()
    if actual != _SHA256:
        cause = f"it is not the book: {len(data):,} bytes with SHA-256 {actual[:12]}…"
        should = (
            f"it should be {_SIZE:,} bytes with {_SHA256[:12]}…; remove it to download it again"
        )
        raise CorpusError(f"{cause}, and {should}", path)
