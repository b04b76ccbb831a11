"""What Windows does otherwise, in the few places that have to know."""

from __future__ import annotations

import shlex
import subprocess
import sys

WINDOWS = sys.platform == "win32"


def quoted(word: str) -> str:
    """A word of a command to type, quoted for the shell of this system where it has to be."""
    return subprocess.list2cmdline([word]) if WINDOWS else shlex.quote(word)
