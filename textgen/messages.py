"""Words of messages: the nearest known name, text that a terminal may show, sizes, and what to
type.
"""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from textgen import operating_system

# C0 but tab and line feed, DEL, C1, and the bidirectional controls, which let a text read as
# another.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean X?" with the known name most like `name`, or nothing where none is like it."""
    found = nearest_name(name, known)
    return f"did you mean {found!r}?" if found else ""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`; "" where none is like it.

    The beginning of a name stands for it, as "temp" for "template": letter by letter the two are
    not much alike.
    """
    known = list(known)
    begun = [other for other in known if len(name) > 1 and other.startswith(name)]
    matches = sorted(begun, key=len) or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return matches[0] if matches else ""


def known_names(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is unknown: the nearest of those that are known, or all of them."""
    known = sorted(known)
    return nearest(name, known) or f"there are {', '.join(known) or 'none'}"


def nearest_file(path: Path, pattern: str = "*") -> str:
    """ "did you mean X?" with the file beside a path that is most like it, or nothing."""
    return nearest(path.name, sorted(each.name for each in path.parent.glob(pattern)))


def visible(text: str) -> str:
    r"""`text` with control characters as escapes, such as \x1b and \u202e; line breaks and tabs
    stay.
    """
    return _CONTROLS.sub(lambda control: ascii(control[0])[1:-1], text)


def byte_count(count: int) -> str:
    """Bytes in decimal units, to two digits at least: "87 kB", "3.4 MB", "16 GB"."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    decimals = 1 if unit != "B" and value < 9.95 else 0
    return f"{value:,.{decimals}f} {unit}"


def quoted(word: str) -> str:
    """A word of a command to type, quoted for the shell of this system where it has to be."""
    return subprocess.list2cmdline([word]) if operating_system.WINDOWS else shlex.quote(word)
