"""The user's cache: files that were made or fetched once, for the runs that come after.

    KEY-NAME    a file: the tokens of a text, a download, or the weights of a model
    KEY.json    its record: the name, size and time of the file, and facts about it

Both are written whole (textgen.files.durable), the record last, so a killed process leaves nothing
that counts. Nothing is locked: if two processes make the same entry, the second replaces the first.
A file that does not agree with its record is no entry, and is made again. Only entries are removed,
and temporary files of textgen that are an hour old.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from textgen.errors import RunError
from textgen.files.durable import write_atomic
from textgen.files.opening import MALFORMED_DATA, file_signature
from textgen.files.reading import read_json
from textgen.protocols import Table

_MAX_BYTES: Final = 10e9  # bytes of encoded texts, and of converted models
_ABANDONED_SECONDS: Final = 3600.0  # seconds after which nobody still writes to a file
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{40}\.[0-9a-f]{32}\.tmp")  # by textgen.files.durable


@attrs.frozen
class CacheEntry:
    """A file in the cache.

    facts   what it was added with
    size    in bytes
    used    when it was last used, in seconds since the epoch
    """

    path: Path
    record: Path
    facts: Table
    size: int
    used: float

    def remove(self) -> bool:
        """Remove the file and its record; False where the system refuses.

        Windows refuses while a process maps the file.
        """
        try:
            self.path.unlink(missing_ok=True)
            self.record.unlink(missing_ok=True)
        except OSError:
            return False
        return True


@attrs.frozen
class Cache:
    """The entries in `folder`, which need not exist, and the bytes that they may take."""

    folder: Path
    limit: float = float("inf")

    def find(self, key: str) -> CacheEntry | None:
        """The entry of a key, which is now the one used last.

        Any fault of it means that there is none.
        """
        entry = self._read(key)
        if entry is not None:
            with contextlib.suppress(OSError):
                os.utime(entry.record)
        return entry

    def add(self, key: str, name: str, pieces: Iterable[bytes], facts: Table) -> CacheEntry:
        """Make an entry of `pieces`, and remove the others used longest ago that exceed the limit.

        Raises OSError if that cannot be done, and what `pieces` raises.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # for nobody else to read
        path, record = self.folder / f"{key}-{name}", self._record(key)
        write_atomic(path, pieces)
        status = path.stat()
        about = {**facts, "name": path.name, "size": status.st_size, "time": status.st_mtime_ns}
        write_atomic(record, json.dumps(about, default=str).encode())
        total = 0
        for entry in self.entries():
            total += entry.size
            if total > self.limit and entry.path != path:
                entry.remove()
        self.sweep()
        return CacheEntry(path, record, about, status.st_size, status.st_mtime)

    def entries(self) -> Iterator[CacheEntry]:
        """The entries, the one that was used last first, one at a time: some have large facts."""
        used = {path.stem: file_signature(path) or (0, 0) for path in self.folder.glob("*.json")}
        for key in sorted(used, key=lambda key: -used[key][1]):
            if (entry := self._read(key)) is not None:
                yield entry

    def sweep(self) -> None:
        """Remove what killed processes left."""
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                is_old = path.lstat().st_mtime < time.time() - _ABANDONED_SECONDS
                if is_old and _TEMPORARY.fullmatch(path.name):
                    path.unlink()

    def _read(self, key: str) -> CacheEntry | None:
        record = self._record(key)
        try:
            used, facts = record.lstat().st_mtime, read_json(record)
            name, size = facts["name"], facts["size"]
            if re.fullmatch(f"{key}-[A-Za-z0-9._-]+", name):
                signature = file_signature(self.folder / name)
                if signature is not None and signature[:2] == (size, facts["time"]):
                    return CacheEntry(self.folder / name, record, facts, size, used)
        except (OSError, RunError, *MALFORMED_DATA):
            pass
        return None

    def _record(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def cache_directory() -> Path:
    """TEXTGEN_CACHE_DIR, or the platform's place for caches."""
    if directory := os.environ.get("TEXTGEN_CACHE_DIR"):
        return Path(directory)
    import platformdirs

    return Path(platformdirs.user_cache_dir("textgen", appauthor=False))


def encoded_texts() -> Cache:
    """The user's cache of encoded texts."""
    return Cache(cache_directory() / "tokens", _MAX_BYTES)


def downloads() -> Cache:
    """The user's cache of downloads."""
    return Cache(cache_directory() / "downloads")


def converted_models() -> Cache:
    """The user's cache of models in a form that loads fast."""
    return Cache(cache_directory() / "models", _MAX_BYTES)
