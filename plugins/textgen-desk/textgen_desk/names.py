"""Names of runs and documents that are names of files on every system, and leave no folder."""

from __future__ import annotations

import os
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
_MADE_CHARACTERS: Final = 80  # characters of a name that is made
_MADE_BYTES: Final = 150
# File systems allow 255 bytes. What is added to a name is a number or the time in the bin, a suffix
# and what marks a file that is being written.
_BYTES: Final = 200


def is_name(name: str) -> bool:
    """Whether it may be one."""
    is_short = len(os.fsencode(name)) <= _BYTES if _NAME.fullmatch(name) else False
    return is_short and name[-1] not in " ." and not _RESERVED.match(name)


def check_name(name: str) -> str:
    """The name. Raises UsageError where it may be none."""
    if not is_name(name):
        cause = f"use letters, digits, spaces and -, of at most {_BYTES} bytes"
        raise UsageError(f"{name!r} cannot be a name; {cause}")
    return name


def made_suffix(file: str) -> str:
    """The suffix of a file in small letters, with that of its compression."""
    found = _SUFFIX.search(file)
    return found[0].lower() if found else ".txt"


def made_name(wished: str) -> str:
    """A name that is as near to a wish as can be."""
    name = shortened(_OTHERS.sub("-", wished).strip(" .-_'")[:_MADE_CHARACTERS], _MADE_BYTES)
    return name if name and is_name(name) else f"text {name}".rstrip()


def shortened(name: str, most: int) -> str:
    """The beginning of a name, of so many bytes at most."""
    return name.encode()[:most].decode(errors="ignore").rstrip(" .-")


def numbered(name: str) -> Iterator[str]:
    """Yield the name, and then others like it."""
    yield name
    number = 1
    while True:
        yield f"{name} {(number := number + 1)}"


def binned(name: str) -> str:
    """The name in a bin of what is removed now."""
    return f"{name} {time.strftime('%Y-%m-%d %H-%M-%S')} {time.time_ns() % 1000}"


def is_binned(name: str) -> bool:
    """Whether something in a bin has a name that `binned` has made."""
    found = _BINNED.fullmatch(name)
    return found is not None and is_name(found[1])


def unbinned(name: str, there: Iterable[str]) -> str:
    """The name that something had before it came into a bin. Raises UsageError where it is not
    among what is there.
    """
    if name not in there or (found := _BINNED.fullmatch(name)) is None:
        raise UsageError(f"there is no {name!r} in the bin")
    return check_name(found[1])


def shown_name(name: str) -> str:
    """A name of a file as text; bytes in it that are none become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")
