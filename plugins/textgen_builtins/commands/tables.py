"""Runs as rows, for tables and JSON: the same figures in compare and runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from textgen import RunSummary
from textgen.messages import byte_count, visible
from textgen_builtins.commands.compared import ComparedRun

_COLUMNS: Final[Mapping[str, Callable[[ComparedRun], str]]] = {
    "run": lambda run: run.label,
    "status": lambda run: _status(run.summary),
    "loss": lambda run: _number(run.summary.best_loss, 4),
    "bits/char": lambda run: _number(run.bits_per_character, 3),
    "steps": lambda run: _steps(run.summary),
    "seconds": lambda run: _number(run.summary.seconds),
    "chars/s": lambda run: _number(run.characters_per_second),
    "parameters": lambda run: _number(run.summary.parameters),
    "size": lambda run: byte_count(run.summary.bytes),
    "age": lambda run: _age(run.summary.changed),
    "cause": lambda run: run.summary.cause.replace(f"{run.summary.path}/", "").partition("\n")[0],
}
_TEXTS: Final = ("run", "status", "cause")
_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def table(runs: Sequence[ComparedRun], names: Sequence[str]) -> str:
    """Runs as a table for a terminal, with the columns of these names."""
    lines = [names, *([printable(_COLUMNS[name](run)) for name in names] for run in runs)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    made = []
    for line in lines:
        cells = (
            cell.ljust(width) if name in _TEXTS else cell.rjust(width)
            for name, cell, width in zip(names, line, widths, strict=True)
        )
        made.append("  ".join(cells).rstrip())
    return "\n".join(made)


def as_row(run: ComparedRun) -> dict[str, Any]:
    """A run in JSON: its summary without the record, and what its metrics say."""
    figures = attrs.asdict(run.summary, filter=lambda field, _: field.name != "record")
    return {
        "name": run.label,
        **figures,
        "path": str(run.summary.path),
        "parameters": run.summary.parameters,
        "bits_per_character": run.bits_per_character,
        "characters_per_second": run.characters_per_second,
    }


def printable(text: str) -> str:
    """The text in one line, without what would command a terminal: run directories may come from
    anywhere.
    """
    return visible(" ".join(text.splitlines()).replace("\t", " "))


def _number(value: float | None, decimals: int = 0) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"


def _steps(run: RunSummary) -> str:
    """Steps done of those to be done."""
    is_whole = run.steps is None or run.step is None
    return _number(run.step) if is_whole else f"{run.step:,} of {run.steps:,}"


def _status(run: RunSummary) -> str:
    """Status of a run; "finished early" if it has fewer steps than planned."""
    is_early = run.status == "finished" and (run.step or 0) < (run.steps or 0)
    return "finished early" if is_early else run.status


def _age(moment: float) -> str:
    """The time since a moment, 0 if it is not known, in the largest unit of which there are two."""
    seconds = time.time() - moment
    name, unit = next((each for each in _UNITS if seconds >= 2 * each[1]), _UNITS[-1])
    return f"{seconds / unit:.0f} {name}" if moment else "-"
