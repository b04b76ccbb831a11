"""Figures and tables as people read them."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from typing import Final

from textgen import RunSummary
from textgen.messages import byte_count as byte_count
from textgen.messages import visible

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """Rows under their header in columns, those of the numbers in `right` aligned to the right."""
    lines = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    made = []
    for line in lines:
        cells = [
            " " * (wide - width(cell)) + cell
            if place in right
            else cell + " " * (wide - width(cell))
            for place, (cell, wide) in enumerate(zip(line, widths, strict=True))
        ]
        made.append("  ".join(cells).rstrip())
    return "\n".join(made)


def printable(text: str) -> str:
    """The text in one line, without what would command a terminal: run directories may come from
    anywhere.
    """
    return visible(" ".join(text.splitlines()).replace("\t", " "))


def number(value: float | None, decimals: int = 0) -> str:
    """A figure."""
    return "-" if value is None else f"{value:,.{decimals}f}"


def counted(number: int, noun: str) -> str:
    """The number and the noun, in the plural but for one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def age(moment: float) -> str:
    """The time since a moment, 0 if it is not known, in the largest unit of which there are two."""
    seconds = time.time() - moment
    name, unit = next((each for each in _UNITS if seconds >= 2 * each[1]), _UNITS[-1])
    return f"{seconds / unit:.0f} {name}" if moment else "-"


def progress(step: int | None, steps: int | None) -> str:
    """Steps done of those to be done."""
    return number(step) if steps is None or step is None else f"{step:,} of {steps:,}"


def status(run: RunSummary) -> str:
    """Status of a run; "finished early" if it has fewer steps than planned."""
    is_early = (
        run.status == "finished"
        and run.step is not None
        and run.steps is not None
        and run.step < run.steps
    )
    return "finished early" if is_early else run.status


def width(text: str) -> int:
    """Columns on a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
