"""Names of runs and documents that are names of files on every system, and leave no folder."""

from __future__ import annotations

import re
from typing import Final

from textgen import UsageError

_NAME: Final = re.compile(r"[^\W_][\w ()+,.'-]{0,99}")
_OTHERS: Final = re.compile(r"[^\w ()+,.'-]+|\.{2,}")
_RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # by Windows
_SUFFIX: Final = re.compile(r"(?i)\.\w{1,8}(\.(gz|zst))?$")
_LONGEST: Final = 80  # characters of a name that is made


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
    name = _OTHERS.sub("-", wished).strip(" .-_'")[:_LONGEST].rstrip(" .-")
    return name if name and is_name(name) else f"text {name}".rstrip()
