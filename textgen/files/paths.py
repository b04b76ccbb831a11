"""Paths that callers give, and the files under them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textgen.errors import UsageError


def file_states(folder: Path) -> Iterator[os.stat_result]:
    """The state of each file under a folder. Links are not followed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                yield os.lstat(os.path.join(parent, name))


def path_of(value: Any, argument: str) -> Path:
    """A path that a caller gave. Raises UsageError for what cannot be one."""
    if not isinstance(value, str | Path) or "\0" in str(value) or not str(value):
        raise UsageError("expected a path", argument=argument, value=value)
    return Path(value)
