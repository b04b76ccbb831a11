"""Opens files that a stranger may have made: regular ones alone.

Nothing here waits for a pipe, reads a device, or follows a link out of the folder that a file lies
in. Whatever lies in a run directory, in the folder of a desk or in that of a model is opened so:

    with opened(inside(folder, name)) as file:      a file to read in pieces
    read_bytes(inside(folder, name), max_bytes=...)      of textgen.files.reading: its bytes

A name may have any bytes that the system allows.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final

from textgen.errors import CorruptFileError, RunError, TextgenError

_FLAGS: Final = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)
# Exceptions that malformed data can cause.
MALFORMED_DATA: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def is_special(path: Path) -> bool:
    """Whether a path leads to something else than a regular file or a folder, such as a named pipe
    or a device.
    """
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def file_signature(path: str | Path) -> tuple[int, ...] | None:
    """Size, times and number of a regular file, which tell whether it is still the same; None if
    there is none.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    facts = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    return facts if stat.S_ISREG(found.st_mode) else None


def inside(folder: Path, name: str | Path) -> Path:
    """The path of a file or a folder, which need not be there, in a folder that somebody else may
    have made.

    name   relative to the folder; a name that comes from a file of it may be anything

    Raises RunError where the name or a symbolic link leads out of the folder, CorruptFileError for
    a pipe or a device.
    """
    path = folder / name
    try:
        real = os.path.realpath(path)  # Path.resolve raises on links in a circle
    except ValueError as error:  # a NUL
        raise CorruptFileError(path, f"it is no name of a file ({error})") from error
    if not Path(real).is_relative_to(os.path.realpath(folder)):
        cause = f"{path} leads out of its folder; it is not followed"
        raise RunError(f"{cause}: put what it leads to in its place, or remove it", folder)
    if is_special(path):
        raise CorruptFileError(path, "it is not a regular file; remove it")
    return path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file to read.

    Raises CorruptFileError for anything else, without reading it, and OSError.
    """
    real = os.path.realpath(path)  # Path.resolve raises RuntimeError where links lead in a circle
    with open(os.open(real, os.O_RDONLY | _FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CorruptFileError(path, "it is not a regular file; it is not read")
        yield file


@contextlib.contextmanager
def translating_corruption(
    path: Path, what: str = "it does not hold what it should"
) -> Iterator[None]:
    """Take in the content of a file: what is unforeseen about it becomes a CorruptFileError that
    names the file.
    """
    try:
        yield
    except TextgenError:
        raise
    except MALFORMED_DATA as error:
        raise CorruptFileError(path, f"{what} ({str(error) or type(error).__name__})") from error
