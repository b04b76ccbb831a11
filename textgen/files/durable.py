"""Writes that survive a kill and a power loss.

Every file of a run, a cache or a saved state is written by these steps.

What is assumed of a file system is less than the common ones promise. After a power loss a file
holds what it held when it was last synced, and any part of what was written since, or zeros in its
place. A folder lists what it listed when it was last synced, and the first few of the changes
since, in their order. Two folders, or a folder and the files in it, keep no order between them. A
rename happens or does not. A kill without a power loss loses nothing that was written.

A file that appears whole (`new_file`, `write_atomic`, `write_json`)
    1. write `.NAME.*.tmp` beside it    2. sync it    3. rename it to NAME    4. sync the folder
    Before 3, NAME is what it was. The disk may get 3 before it is asked to by 4, but 2 is done by
    then, so that what NAME now means is whole. After 4 it lasts.

A folder that appears whole (`new_folder`)
    1. make `.partial-*` beside it    2. fill it, syncing each file
    3. sync the folders in it, the deepest first
    4. rename it to its name    5. sync the folder that it is in
    Before 4, there is no such name. 2 and 3 are done by then, so that a folder with the name lists
    all of its files, and each is whole. What says that a folder is whole is a last file in it,
    written when the others are synced: in the manifest of a checkpoint are their checksums. By it a
    checkpoint is judged too where the file system renames a folder file by file.

What grows (`append`)
    Rows are written at the end and synced before `append` returns, so before a checkpoint that
    counts them is begun. Rows after the last one that was counted are cut off when the run resumes.

What is removed (`remove_folder`)
    1. rename it to `.removed-*`    2. sync the folder that it is in    3. remove it
    Nobody finds half of it under its name. Before removing a file, sync its replacement. Remove
    `run.json` first, and sync, before the files it describes.

What a killed process leaves has one of the names in LEFTOVERS. On macOS a sync is F_FULLFSYNC:
fsync leaves data in the cache of the drive. Where folders cannot be synced, as on Windows, the
order of renames is the file system's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from textgen.files.opening import opened

PARTIAL: Final = ".partial-"
REMOVED: Final = ".removed-"
LEFTOVERS: Final = (f"{PARTIAL}*", f"{REMOVED}*", ".*.tmp")
# Seconds, 5 in all.
_RENAME_PAUSES: Final = tuple(0.01 * 2**n for n in range(9)) if os.name == "nt" else ()
_PIECE_BYTES: Final = 1 << 22  # bytes copied at a time
# Of folders.
_UNSYNCABLE_ERRORS: Final = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EACCES,
)


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data` so that `path` holds all of it or what it held before, even if the machine
    stops.
    """
    with new_file(path) as file:
        file.writelines([data] if isinstance(data, bytes) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one piece."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write in pieces.

    It replaces `path` when the block ends, or is removed when that raises.
    """
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(16)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            sync_file(file)
        rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill.

    It gets the name `path`, which is free, when the block ends, or is removed when that raises.

    Write files in it with `write_synced`.
    """
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(16)}")
    try:
        partial.mkdir()
        yield partial
        sync_tree(partial)
        rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> str:
    """Write a file of a folder that has not got its name yet, sync it, and return its SHA-256."""
    with path.open("wb") as file:
        file.write(data)
        sync_file(file)
    return hashlib.sha256(data).hexdigest()


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file and sync it."""
    with path.open("ab") as file:
        is_new = not file.tell()
        file.write(data)
        sync_file(file)
    if is_new:
        sync_folder(path.parent)


def pieces_of(path: Path) -> Iterator[bytes]:
    """The bytes of a regular file, some megabytes at a time.

    Raises CorruptFileError for anything else, and OSError.
    """
    with opened(path) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each synced into the one that it is in."""
    if not path.is_dir():
        if path != path.parent:  # else a drive that is not there
            make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file or a folder; a file replaces another.

    Windows refuses while somebody, such as a virus scanner, has the file open, so there it is tried
    again for seconds.
    """
    for pause in _RENAME_PAUSES:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(source, target)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it. Of a symbolic link, the link alone."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def remove_folder(path: Path) -> None:
    """Remove a folder, which loses its name first. Of a symbolic link, the link alone."""
    if path.is_symlink():
        path.unlink()
        return
    removed = path.with_name(f"{REMOVED}{secrets.token_hex(16)}")
    rename(path, removed)
    sync_folder(path.parent)
    remove(removed)


def sync_folder(path: Path) -> None:
    """Make what happened to names in the folder durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _sync(descriptor)
        except OSError as error:
            if error.errno not in _UNSYNCABLE_ERRORS:
                error.filename = str(path)
                raise
        finally:
            os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Sync a folder and those in it, the deepest first.

    Their files are synced by who writes them.
    """
    for folder, _, _ in os.walk(path, topdown=False):
        sync_folder(Path(folder))


def sync_file(file: BinaryIO) -> None:
    """Wait until the disk has what was written to a file."""
    file.flush()
    _sync(file.fileno())


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # not every file system has it
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)
