"""Runs side by side as one HTML page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from textgen_builtins.commands import text
from textgen_builtins.commands.compared import ComparedRun, differences, warning
from textgen_builtins.commands.curves import draw

HEADER: Final = (
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


def page(runs: Sequence[ComparedRun], prompt: str | None) -> str:
    """The page. Whatever comes from a run is escaped."""
    cause = warning(runs)
    template = Template(
        Path(__file__).with_name("comparison.html.template").read_text(encoding="utf-8")
    )
    drawn = [run.label for run in runs if run.curve]
    figures = [
        [
            _swatch(drawn.index(run.label) if run.curve else None) + _name(run),
            *map(escape, cells(run)[1:]),
        ]
        for run in runs
    ]
    return template.substitute(
        title=text.counted(len(runs), "run"),
        note=f'<p class="note">{escape(cause)}</p>' if cause else "",
        figures=_table(map(escape, HEADER), figures, "figures"),
        settings=_settings(runs),
        curves=f'<div class="plot">{draw(runs)}</div>'
        if drawn
        else "<p>No run has an evaluation yet.</p>",
        samples=_samples(runs, prompt),
    )


def cells(run: ComparedRun) -> tuple[str, ...]:
    """The figures of a run, under HEADER."""
    summary = run.summary
    return (
        run.label,
        text.status(summary),
        text.loss(summary.best_loss),
        "-" if run.bits_per_character is None else f"{run.bits_per_character:.3f}",
        text.count(summary.step)
        if summary.step == summary.steps
        else text.progress(summary.step, summary.steps),
        text.count(summary.seconds),
        text.count(run.characters_per_second),
        text.count(summary.parameters),
        text.byte_count(summary.bytes),
    )


def is_page(beginning: bytes) -> bool:
    """Whether a file that begins so is such a page."""
    return _MARK in beginning


def _table(header: Iterable[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """A table of cells that are HTML; the first of each row names it."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _name(run: ComparedRun) -> str:
    """Its label, which may be long, and is broken after a setting or a folder."""
    return re.sub("[,/]", r"\g<0><wbr>", escape(run.label))


def _swatch(number: int | None) -> str:
    """A piece of the run's line."""
    path = "" if number is None else f'<path class="c{number}" d="M0 5 h26"/>'
    return f'<svg class="curves swatch" width="26" height="10" aria-hidden="true">{path}</svg>'


def _settings(runs: Sequence[ComparedRun]) -> str:
    """The settings that differ; of runs and settings, the more numerous go down the page."""
    found = differences(runs)
    if not found:
        return "<p>All settings are the same.</p>" if len(runs) > 1 else ""
    runs = [run for run in runs if run.settings]
    names = [_name(run) for run in runs]
    by_run = [{label: value for value, labels in each.values for label in labels} for each in found]
    rows = [[escape(values[run.label]) for run in runs] for values in by_run]
    keys = [escape(each.key) for each in found]
    if len(keys) > len(runs):
        return _table(
            ["setting", *names],
            [[key, *row] for key, row in zip(keys, rows, strict=True)],
            "settings",
        )
    columns = zip(*rows, strict=True)
    return _table(
        ["run", *keys],
        [[name, *column] for name, column in zip(names, columns, strict=True)],
        "settings",
    )


def _samples(runs: Sequence[ComparedRun], prompt: str | None) -> str:
    shown = [run for run in runs if run.text or run.why_no_text]
    if not shown:
        return ""
    begun = f" after <q>{escape(prompt)}</q>" if prompt else ""
    cards = []
    for run in shown:
        body = (
            f"<pre>{escape(run.text)}</pre>"
            if run.text
            else f'<p class="note">{escape(run.why_no_text)}</p>'
        )
        cards.append(f"<article><h3>{_name(run)}</h3>{body}</article>")
    return f'<h2>What they write{begun}</h2>\n<div class="samples">{"".join(cards)}</div>'
