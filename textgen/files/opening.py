"""Opens files that a stranger may have made: regular ones alone. Nothing here waits for a pipe, or reads a device."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final

from textgen.errors import CorruptFileError, TextgenError

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link in a circle"),  # as links are followed
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)
_FLAGS: Final = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)
# What code meets that takes in the content of a file, where that is not what it should be.
UNFORESEEN: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def non_regular_kind(path: Path) -> str:
    """What is at a path, links followed, if that is neither a regular file nor a folder: "a named pipe"; else ""."""
    with contextlib.suppress(OSError):
        kind = _kind(path.stat().st_mode)
        return "" if kind == "a folder" else kind
    return ""


def file_signature(path: str | Path) -> tuple[int, ...] | None:
    """Size, times and number of a regular file, which tell whether it is still the same; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    facts = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    return facts if stat.S_ISREG(found.st_mode) else None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file to read. Raises CorruptFileError for anything else, without opening it, and OSError."""
    real = os.path.realpath(path)  # Path.resolve raises RuntimeError where links lead in a circle
    _check_kind(path, os.lstat(real))
    with open(os.open(real, os.O_RDONLY | _FLAGS), "rb") as file:
        _check_kind(path, os.fstat(file.fileno()))  # it may be another one by now
        yield file


@contextlib.contextmanager
def contents_of(path: Path, what: str = "it does not hold what it should") -> Iterator[None]:
    """Take in the content of a file: what is unforeseen about it becomes a CorruptFileError that names the file."""
    try:
        yield
    except TextgenError:
        raise
    except UNFORESEEN as error:
        cause = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise CorruptFileError(path, f"{what} ({cause})") from error


def _check_kind(path: Path, status: os.stat_result) -> None:
    if kind := _kind(status.st_mode):
        raise CorruptFileError(path, f"it is {kind}, and a file is wanted; it is not opened")


def _kind(mode: int) -> str:
    return (
        ""
        if stat.S_ISREG(mode)
        else next((kind for is_one, kind in _KINDS if is_one(mode)), "no regular file")
    )
