"""Rows of runs, for tables and JSON: the same figures in compare and runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from textgen_builtins.commands import text
from textgen_builtins.commands.compared import ComparedRun

COLUMNS: Final[Mapping[str, Callable[[ComparedRun], str]]] = {
    "run": lambda run: run.label,
    "status": lambda run: text.status(run.summary),
    "loss": lambda run: text.number(run.summary.best_loss, 4),
    "bits/char": lambda run: text.number(run.bits_per_character, 3),
    "steps": lambda run: text.progress(run.summary.step, run.summary.steps),
    "best step": lambda run: text.progress(run.summary.best_step, run.summary.step),
    "seconds": lambda run: text.number(run.summary.seconds),
    "chars/s": lambda run: text.number(run.characters_per_second),
    "parameters": lambda run: text.number(run.summary.parameters),
    "size": lambda run: text.byte_count(run.summary.bytes),
    "age": lambda run: text.age(run.summary.changed),
    "cause": lambda run: run.summary.cause.replace(f"{run.summary.path}/", "").partition("\n")[0],
}
_TEXTS: Final = ("run", "status", "cause")


def table(runs: Sequence[ComparedRun], names: Sequence[str]) -> str:
    """Runs as a table for a terminal, with the columns of these names."""
    right = [place for place, name in enumerate(names) if name not in _TEXTS]
    return text.table(names, [[COLUMNS[name](run) for name in names] for run in runs], right=right)


def as_row(run: ComparedRun, **more: Any) -> dict[str, Any]:
    """A run in JSON: its summary without the record, and what its metrics say."""
    figures = attrs.asdict(run.summary, filter=lambda field, _: field.name != "record")
    return {
        "name": run.label,
        **figures,
        "path": str(run.summary.path),
        "parameters": run.summary.parameters,
        "bits_per_character": run.bits_per_character,
        "characters_per_second": run.characters_per_second,
        **more,
    }
