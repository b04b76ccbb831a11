"""textgen runs: what is in a folder of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from textgen import RunSummary, UsageError
from textgen.cli import json_option
from textgen_builtins.commands.compared import read_run
from textgen_builtins.commands.folders import summaries
from textgen_builtins.commands.tables import as_row, table

_COLUMNS: Final = ("run", "status", "steps", "loss", "bits/char", "size", "age", "cause")


@click.command("runs")
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """List the runs of a folder, the newest first: status, progress, loss, size and age.

    FOLDER is runs/ if not given; its runs may be in folders of their own. Loss and bits per
    character are the lowest ones of the held-out text. An unfinished run resumes with
    `textgen run`.

    A finished run keeps a checkpoint to be trained on from, to a greater length. Without its folder
    checkpoints/ it generates, and is evaluated, as before.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {what}; give the folder that your runs are in")
    runs = [read_run(run, _label(run, folder)) for run in summaries(folder)]
    found = sorted(runs, key=lambda run: (-run.summary.changed, run.label))
    if as_json:
        click.echo(json.dumps(list(map(as_row, found)), indent=2, ensure_ascii=False))
    elif not found:
        click.echo(f"textgen: no runs in {folder}", err=True)
    else:
        click.echo(table(found, _COLUMNS))


def _label(run: RunSummary, folder: Path) -> str:
    """The path of a run in the folder, or its name if it is the folder."""
    inside = run.path != folder.absolute()
    return run.path.relative_to(folder.absolute()).as_posix() if inside else run.path.name
