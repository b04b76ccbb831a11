"""Names of runs and documents that are names of files on every system, and leave no folder."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Final

from textgen import UsageError

_NAME: Final = re.compile(r"[^\W_][\w ()+,.'-]{0,99}")
_OTHERS: Final = re.compile(r"[^\w ()+,.'-]+|\.{2,}")
_RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # by Windows
_SUFFIX: Final = re.compile(r"(?i)\.\w{1,8}(\.(gz|zst))?$")
_BINNED: Final = re.compile(r"(.+) \d{4}-\d\d-\d\d \d\d-\d\d-\d\d \d{1,3}")
_NAME_CHARACTERS: Final = 80  # characters of a name that is made


def is_name(name: str) -> bool:
    """Whether it may be one."""
    return _NAME.fullmatch(name) is not None and name[-1] not in " ." and not _RESERVED.match(name)


def check_name(name: str) -> str:
    """The name. Raises UsageError where it may be none."""
    if not is_name(name):
        raise UsageError(f"{name!r} is no name; use letters, digits, spaces and -")
    return name


def made_suffix(file: str) -> str:
    """The suffix of a file in small letters, with that of its compression."""
    found = _SUFFIX.search(file)
    return found[0].lower() if found else ".txt"


def made_name(wished: str) -> str:
    """A name that is as near to a wish as can be."""
    name = _OTHERS.sub("-", wished).strip(" .-_'")[:_NAME_CHARACTERS].rstrip(" .-")
    return name if name and is_name(name) else f"text {name}".rstrip()


def numbered(name: str) -> Iterator[str]:
    """Yield the name, and then others like it."""
    yield name
    number = 1
    while True:
        yield f"{name} {(number := number + 1)}"


def binned(name: str) -> str:
    """The name in a bin of what is removed now."""
    return f"{name} {time.strftime('%Y-%m-%d %H-%M-%S')} {time.time_ns() % 1000}"


def unbinned(name: str, there: Iterable[str]) -> str:
    """The name that something had before it came into a bin. Raises UsageError where it is not
    among what is there.
    """
    found = _BINNED.fullmatch(name)
    if found is None or name not in there:
        raise UsageError(f"there is no {name!r} in the bin")
    return check_name(found[1])
