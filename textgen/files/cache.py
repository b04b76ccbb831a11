"""The user's cache: what was made once and is used by runs and processes that come after.

    KEY/           an entry: `data`, which never changes, and entry.json, which says what it is
    KEY/.use-*     one for each process that uses the entry, locked for as long as it does
    KEY.json       a note: a small value under a key
    lock           held for a moment, by whoever begins to use an entry, puts one in place, or removes one
    work-XX        held by whoever makes an entry, so that others wait for it
    .partial-*/    an entry that is being made, with a .use-* in it
    .removed-*/    an entry that is being removed

An entry appears whole, as textgen.files.durable says. What a killed process leaves is known by its locks, which the
system releases. What a disk spoils is found by checksums, and made again.

Entries above the limit go, the one that was used longest ago first, but none that a living process uses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from textgen.errors import CorruptFileError, UsageError
from textgen.files.durable import sync_file, sync_folder, sync_tree, write_atomic, write_synced
from textgen.files.reading import LARGEST, cache_directory, json_checksum, read_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger("textgen")
FOLDER: Final = "tokens"
_FORMAT: Final = 1
_SIZE: Final = "TEXTGEN_CACHE_SIZE"
_DEFAULT: Final = "10 GB"
_UNITS: Final = ("", "k", "m", "g", "t")
_BLOCK: Final = 1 << 23  # bytes with a checksum of their own
_CHECKED: Final = (
    8  # blocks that are checked when an entry is opened: the first, the last, and some between
)
_PATIENCE: Final = 30.0  # seconds; nobody holds the lock for longer than a moment
_NOTES: Final = 10_000
UNUSABLE: Final = (OSError, NotImplementedError)
"""What a folder that cannot be written to raises, and a file system without locks."""


@attrs.frozen
class EntryInfo:
    """An entry as `Cache.entries` lists it.

    facts    what it was added with
    size     bytes on the disk
    used     when it was last used, in seconds since the epoch
    in_use   whether a living process uses it
    """

    path: Path
    facts: Mapping[str, Any]
    size: int
    used: float
    in_use: bool


@attrs.frozen
class Entry:
    """An entry that is used: its file `data`, and the facts it was added with. It stays until `close`."""

    data: Path
    facts: Mapping[str, Any]
    _use: BaseFileLock | None = None

    def close(self) -> None:
        """End the use of it."""
        if self._use is not None:
            _release(self._use)


@attrs.frozen
class Cache:
    """Entries and notes in `folder`, which need not exist. Their size is kept below `limit`, in bytes."""

    folder: Path
    limit: int

    @classmethod
    def of_user(cls) -> Cache:
        """The cache of encoded corpora. Raises UsageError for a wrong TEXTGEN_CACHE_SIZE."""
        return cls(cache_directory() / FOLDER, _limit())

    def use(self, key: str) -> Entry | None:
        """The entry of a key, if it is there and whole. A damaged one is removed."""
        path, use = self.folder / key, None
        if not path.is_dir():
            return None
        try:
            with self._lock():
                os.utime(path / "entry.json")
                use = _new_use(path)
        except UNUSABLE:  # nothing can be written here, so nothing is removed either; or it is gone
            pass
        header = _whole(path)
        if header is not None:
            return Entry(path / "data", header["facts"], use)
        if use is not None:
            _release(use)
        if path.is_dir():
            logger.warning("the cache entry %s is damaged, and is made again", path)
            with contextlib.suppress(*UNUSABLE):
                self._remove([path])
        return None

    def add(self, key: str, pieces: Iterable[bytes], facts: Mapping[str, Any]) -> Entry | None:
        """Make an entry of `pieces`, and use it. None if it is damaged at once.

        Raises OSError where that cannot be, also above the limit, and what `pieces` raise.
        """
        self._make_folder()
        partial = self.folder / f".partial-{uuid.uuid4().hex}"
        with self._lock():
            self._sweep()
            partial.mkdir()
            use = _new_use(partial)
        try:
            header = {
                "format": _FORMAT,
                "facts": dict(facts),
                **self._write_data(partial / "data", pieces),
            }
            write_synced(partial / "entry.json", _sealed(header))
            sync_tree(partial)
            with self._lock():
                _release(use)  # on Windows no folder is renamed while a file in it is open
                path = self.folder / key
                if path.exists() and not self._is_used(path):
                    path.rename(self.folder / f".removed-{uuid.uuid4().hex}")
                if not path.exists():
                    partial.rename(path)
                    sync_folder(self.folder)
        finally:
            _release(use)
            shutil.rmtree(partial, ignore_errors=True)
        entry = self.use(key)
        with contextlib.suppress(*UNUSABLE):
            self._shrink()
        return entry

    @contextlib.contextmanager
    def working(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold off others who want to make the same. Calls `waiting` several times a second while another does."""
        import filelock

        self._make_folder()
        lock = filelock.FileLock(self.folder / f"work-{key[:2]}")
        while True:
            try:
                lock.acquire(timeout=0.2)
                break
            except filelock.Timeout:
                waiting()
        try:
            yield
        finally:
            lock.release()

    def note(self, key: str, value: Mapping[str, Any]) -> None:
        """Write a small value under a key."""
        self._make_folder()
        write_atomic(self.folder / f"{key}.json", _sealed(value))

    def recall(self, key: str) -> dict[str, Any] | None:
        """The value of a note; None if there is none that can be read."""
        return _read(self.folder / f"{key}.json")

    def entries(self) -> list[EntryInfo]:
        """The entries, the one that was used last first."""
        found = []
        for path in self.folder.glob("[!.]*/entry.json"):
            with contextlib.suppress(OSError):
                facts, used, in_use = (
                    (_read(path) or {}).get("facts", {}),
                    path.stat().st_mtime,
                    False,
                )
                with contextlib.suppress(*UNUSABLE), self._lock():
                    in_use = self._is_used(path.parent)
                found.append(EntryInfo(path.parent, facts, _size(path.parent), used, in_use))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self, before: float | None = None) -> list[EntryInfo]:
        """Remove the entries that nobody uses, or those last used before a time; without one, the notes too.

        Returns the entries that are gone.
        """
        entries = [entry for entry in self.entries() if before is None or entry.used < before]
        if before is None:
            for note in self.folder.glob("*.json"):
                note.unlink(missing_ok=True)
        if self.folder.is_dir():
            self._remove(entry.path for entry in entries)
            with self._lock():
                self._sweep()
        return [entry for entry in entries if not entry.path.exists()]

    def _shrink(self) -> None:
        """Remove entries, the one that was used longest ago first, until the rest is within the limit."""
        total, surplus = 0, []
        for entry in self.entries():
            total += entry.size
            if total > self.limit and not entry.in_use:
                surplus.append(entry.path)
                total -= entry.size
        notes = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for note in notes[: -_NOTES // 2] if len(notes) > _NOTES else ():
            note.unlink(missing_ok=True)
        self._remove(surplus)

    def _write_data(self, path: Path, pieces: Iterable[bytes]) -> dict[str, Any]:
        """Write pieces to a file; its size, and the checksums of its blocks."""
        size, blocks, digest, left = 0, [], hashlib.sha256(), _BLOCK
        with path.open("wb") as file:
            for piece in pieces:
                size += len(piece)
                if size > self.limit:
                    raise OSError(f"the tokens would take more than {_SIZE} allows")
                file.write(piece)
                view = memoryview(piece)
                while len(view) >= left:
                    digest.update(view[:left])
                    blocks.append(digest.hexdigest())
                    view, digest, left = view[left:], hashlib.sha256(), _BLOCK
                digest.update(view)
                left -= len(view)
            sync_file(file)
        return {"size": size, "sha256": [*blocks, digest.hexdigest()]}

    def _make_folder(self) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)  # a text may be nobody else's to read

    def _remove(self, paths: Iterable[Path]) -> None:
        """Remove entries that nobody uses."""
        removed = []
        with self._lock():
            for path in paths:
                if path.is_dir() and not self._is_used(path):
                    removed.append(path.rename(self.folder / f".removed-{uuid.uuid4().hex}"))
        for path in removed:
            shutil.rmtree(path, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed processes have left."""
        for path in [*self.folder.glob(".partial-*"), *self.folder.glob(".removed-*")]:
            if not self._is_used(path):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _PATIENCE:
                    path.unlink()

    def _is_used(self, path: Path) -> bool:
        """Whether a living process uses an entry. To be asked while holding the lock."""
        import filelock

        for file in path.glob(".use-*"):
            lock = filelock.FileLock(file, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except UNUSABLE:  # held by the one that uses it
                return True
            _release(lock)
        return False

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        import filelock

        with filelock.FileLock(self.folder / "lock", timeout=_PATIENCE):
            yield


def _new_use(path: Path) -> BaseFileLock:
    import filelock

    use = filelock.FileLock(path / f".use-{uuid.uuid4().hex}", thread_local=False)
    use.acquire(timeout=0)
    return use


def _sealed(value: Mapping[str, Any]) -> bytes:
    """A value as JSON with its checksum: what a disk spoils is found out when it is read."""
    return json.dumps({"sha256": json_checksum(value), "value": value}).encode("ascii")


def _read(path: Path) -> dict[str, Any] | None:
    """What was sealed; None if it is not there, or spoilt."""
    try:
        stored = read_json(path, largest=LARGEST)
        value: dict[str, Any] = stored["value"]
        return value if stored["sha256"] == json_checksum(value) else None
    except (CorruptFileError, KeyError):
        return None


def _release(use: BaseFileLock) -> None:
    use.release()
    with contextlib.suppress(OSError):
        Path(use.lock_file).unlink(missing_ok=True)


def _whole(path: Path) -> dict[str, Any] | None:
    """What entry.json says, if the file `data` is as it says: its size, and some of its checksums."""
    header = _read(path / "entry.json")
    if header is None or header.get("format") != _FORMAT:
        return None
    size, sums = header["size"], header["sha256"]
    try:
        with (path / "data").open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return None
            for index in {len(sums) * i // _CHECKED for i in range(_CHECKED)} | {len(sums) - 1}:
                file.seek(index * _BLOCK)
                if hashlib.sha256(file.read(_BLOCK)).hexdigest() != sums[index]:
                    return None
    except OSError:
        return None
    return header


def _size(folder: Path) -> int:
    return sum(
        path.stat().st_size for path in folder.iterdir() if not path.name.startswith(".use-")
    )


def _limit() -> int:
    text = os.environ.get(_SIZE) or _DEFAULT
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgt]?)(i?)b?", text.strip().lower())
    if not match:
        raise UsageError("expected a size such as 20GB, 500MB or 0", argument=_SIZE, value=text)
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _UNITS.index(unit))
