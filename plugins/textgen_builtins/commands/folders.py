"""Finds the runs in folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from textgen import RunError, RunSummary, summarize

_DEPTH: Final = 2  # folders of folders of runs, as textgen-optuna makes them


def summaries(folder: Path, depth: int = _DEPTH) -> Iterator[RunSummary]:
    """The run at a folder, or those in it. What cannot be read is a damaged one, or none."""
    inner: list[Path] = []
    try:
        try:
            yield summarize(folder)
        except RunError:
            inner = sorted(path for path in folder.iterdir() if path.is_dir()) if depth else []
    except OSError as error:
        cause = error.strerror or str(error)
        yield RunSummary(path=folder.absolute(), status="damaged", cause=cause)
    for path in inner:
        if not path.name.startswith("."):
            yield from summaries(path, depth - 1)
