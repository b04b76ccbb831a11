"""textgen compare: runs side by side, on the command line and in a notebook."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any, Final, Self

import attrs
import click

from textgen.cli import check_page, json_option, write_page
from textgen_builtins.commands.compared import (
    ComparedRun,
    differences,
    have_other_tokens,
    ranked,
    read_runs,
    warning,
)
from textgen_builtins.commands.page import page
from textgen_builtins.commands.tables import as_row, printable, table
from textgen_builtins.curves import Curve, draw

_COLUMNS: Final = (
    *("run", "status", "loss", "bits/char", "steps", "seconds", "chars/s", "parameters", "size"),
)


@attrs.frozen(repr=False)
class Comparison:
    """Runs side by side, the one with the lowest loss first, or where their tokens differ, with the
    fewest bits per character.

    `Comparison.of("runs/a", "runs/b")` in a notebook shows the page of `textgen compare --html`.
    """

    runs: Sequence[ComparedRun]

    @classmethod
    def of(cls, *paths: str) -> Self:
        """The runs at the paths, or in the folders there. Raises UsageError where there is none."""
        return cls(ranked(read_runs(paths)))

    def page(self) -> str:
        """The same with the curves of the losses, as a page that needs no other file."""
        in_bits = have_other_tokens(self.runs)
        curves = [Curve(run.label, run.bits if in_bits else run.curve) for run in self.runs]
        unit = "bits per character" if in_bits else "nats per token"
        body = f"{draw(curves, f'loss ({unit})')}\n<pre>{escape(repr(self))}</pre>"
        return page("Runs side by side", body)

    def __repr__(self) -> str:
        return _as_text(self.runs)

    def _repr_html_(self) -> str:
        style = "width: 100%; height: 45rem; border: 0"
        return f'<iframe sandbox style="{style}" srcdoc="{escape(self.page())}"></iframe>'


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option(
    "--html",
    type=click.Path(),
    metavar="FILE",
    help="Also write it as one page, with the curves of the losses.",
)
@json_option
def compare(runs: Sequence[str], html: str | None, as_json: bool) -> None:
    """Compare runs: settings that differ, losses, speed, size and curves.

    RUNS are run directories, or folders of them. The run with the lowest loss comes first, or if
    the tokens differ, the run with the fewest bits per character. Losses are the lowest ones, in
    nats per token, of the held-out text.
    """
    if html is not None:
        check_page(html)
    compared = Comparison.of(*runs)
    if html is not None:
        write_page(html, compared.page())
    if as_json:
        click.echo(json.dumps(_as_json(compared.runs), indent=2, ensure_ascii=False))
    else:
        click.echo(repr(compared))


def _as_text(runs: Sequence[ComparedRun]) -> str:
    parts = [table(runs, _COLUMNS)]
    if cause := warning(runs):
        parts.append(f"note: {cause}")
    lines = []
    for key, values in differences(runs).items():
        lines.append(printable(key))
        width = min(40, max(map(len, values)))
        lines += [
            f"    {printable(value).ljust(width)}  {printable(', '.join(labels))}"
            for value, labels in values.items()
        ]
    if len(runs) > 1:
        parts.append(
            "\n".join(["settings that differ:", *lines] if lines else ["the same settings"])
        )
    return "\n\n".join(parts)


def _as_json(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    rows = [as_row(run) | {"curve": run.curve} for run in runs]
    return {"runs": rows, "settings": differences(runs), "note": warning(runs)}
