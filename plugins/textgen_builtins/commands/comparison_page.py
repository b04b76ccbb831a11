"""Runs side by side as one HTML page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from textgen_builtins.commands import text
from textgen_builtins.commands.columns import cells
from textgen_builtins.commands.compared import (
    ComparedRun,
    differences,
    have_other_tokens,
    warning,
)
from textgen_builtins.curves import Curve, draw

COLUMNS: Final = (
    "run",
    "status",
    "loss",
    "bits/char",
    "steps",
    "seconds",
    "chars/s",
    "parameters",
    "size",
)
_MARK: Final = b'<meta name="generator" content="textgen compare">'


def page(runs: Sequence[ComparedRun]) -> str:
    """The page. Whatever comes from a run is escaped."""
    cause = warning(runs)
    file = Path(__file__).with_name("comparison.html.template")
    points = _points(runs)
    figures = [[_breakable(run.label), *map(escape, cells(run, COLUMNS[1:]))] for run in runs]
    return Template(file.read_text(encoding="utf-8")).substitute(
        title=text.counted(len(runs), "run"),
        note=f'<p class="note">{escape(cause)}</p>' if cause else "",
        figures=_table(COLUMNS, figures, "figures"),
        settings=_settings(runs),
        curves=draw([Curve(*curve) for curve in points.items()], _unit(runs)),
    )


def _points(runs: Sequence[ComparedRun]) -> dict[str, tuple[tuple[int, float], ...]]:
    in_bits = have_other_tokens(runs)
    return {run.label: run.bits if in_bits else run.curve for run in runs}


def _unit(runs: Sequence[ComparedRun]) -> str:
    kind = "loss of the held-out text" if all(run.is_held_out for run in runs) else "loss"
    return f"{kind} ({'bits per character' if have_other_tokens(runs) else 'nats per token'})"


def is_page(beginning: bytes) -> bool:
    """Whether a file that begins so is such a page."""
    return _MARK in beginning


def _table(header: Iterable[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """A table of cells that are HTML; the first of each row names it."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="wide"><table '
        f'class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def _breakable(label: str) -> str:
    """A label, which may be long, and is broken after a setting or a folder."""
    return re.sub("[,/]", r"\g<0><wbr>", escape(label))


def _settings(runs: Sequence[ComparedRun]) -> str:
    """The settings that differ: a row for each value, with the runs that have it."""
    found = differences(runs)
    if not found:
        return "<p>All settings are the same.</p>" if len(runs) > 1 else ""
    rows = [
        ["" if number else escape(each.key), escape(value), _breakable(", ".join(labels))]
        for each in found
        for number, (value, labels) in enumerate(each.values)
    ]
    return _table(("setting", "value", "runs"), rows, "settings")
