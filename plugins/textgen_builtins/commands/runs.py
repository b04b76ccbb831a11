"""textgen runs: what is in a folder of runs, and what can be removed from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from textgen import RunError, RunSummary, UsageError, prune
from textgen.cli import json_option
from textgen_builtins.commands import text
from textgen_builtins.commands.columns import as_row, table
from textgen_builtins.commands.compared import ComparedRun, read_run
from textgen_builtins.commands.folders import summaries

_COLUMNS: Final = ("run", "status", "steps", "loss", "bits/char", "size", "age", "cause")


@click.command("runs")
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
@click.option(
    "--prune",
    "pruning",
    is_flag=True,
    help="Say what the checkpoints of finished runs take; with --yes, remove them.",
)
@click.option("--yes", "-y", is_flag=True, help="With --prune: remove them.")
@json_option
def runs(folder: Path, pruning: bool, yes: bool, as_json: bool) -> None:
    """List the runs of a folder, the newest first: status, progress, loss, size and age.

    FOLDER is runs/ if not given; its runs may be in folders of their own. Loss and bits per
    character are the lowest ones of the held-out text. A run that is stopped resumes with
    `textgen run`.

    A finished run keeps checkpoints to be trained on from, to a greater length. --prune --yes
    removes them, and only them: what is left generates, and is evaluated, as before. It leaves runs
    alone that are not finished.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {what}; give the folder that your runs are in")
    runs = [read_run(run, _label(run, folder)) for run in summaries(folder)]
    found = sorted(runs, key=lambda run: (-run.summary.changed, run.label))
    if pruning:
        _prune(found, folder, yes=yes, as_json=as_json)
    elif as_json:
        click.echo(json.dumps(list(map(as_row, found)), indent=2, ensure_ascii=False))
    elif not found:
        click.echo(f"textgen: no runs in {folder}", err=True)
    else:
        click.echo(table(found, _COLUMNS))


def _label(run: RunSummary, folder: Path) -> str:
    """The path of a run in the folder, or its name if it is the folder."""
    inside = run.path != folder.absolute()
    return run.path.relative_to(folder.absolute()).as_posix() if inside else run.path.name


def _prune(found: list[ComparedRun], folder: Path, *, yes: bool, as_json: bool) -> None:
    """Remove checkpoints of finished runs, except of those that a link leads to out of the
    folder.
    """
    chosen = [
        run
        for run in (each.summary for each in found)
        if run.status == "finished"
        and run.checkpoint_bytes
        and run.path.resolve().is_relative_to(folder.resolve())
    ]
    if chosen and not yes:
        size = text.byte_count(sum(run.checkpoint_bytes for run in chosen))
        runs = text.counted(len(chosen), "finished run")
        raise UsageError(
            f"the checkpoints of {runs} take {size}; --yes removes them, and then the runs cannot "
            "be trained on to a greater length"
        )
    removed, failed = {}, []
    for run in chosen:
        try:
            removed[str(run.path)] = prune(run.path)
        except RunError as error:  # another process has begun to use it
            failed.append(error)
    total = sum(removed.values())
    if as_json:
        click.echo(json.dumps({"bytes": total, "runs": removed}, indent=2, ensure_ascii=False))
    else:
        click.echo(
            f"textgen: removed {text.byte_count(total)} from {text.counted(len(removed), 'run')}",
            err=True,
        )
    for each in failed:
        click.echo(f"textgen: error: {text.printable(str(each))}", err=True)
    if failed:
        raise SystemExit(1)
