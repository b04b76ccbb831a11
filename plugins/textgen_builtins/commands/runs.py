"""textgen runs: what is in a folder of runs, and what can be removed from it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import click

from textgen import RunError, RunSummary, UsageError, prune
from textgen.cli import json_option
from textgen_builtins.commands import text
from textgen_builtins.commands.folders import summaries

_HEADER: Final = ("run", "status", "steps", "loss", "size", "age", "")
_ORDERS: Final[dict[str, Callable[[RunSummary], Any]]] = {
    "age": lambda run: -run.changed,
    "loss": lambda run: math.inf if (loss := _loss(run)) is None else loss,
    "name": lambda run: str(run.path),
    "size": lambda run: -run.bytes,
}


@click.command("runs")
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
@click.option(
    "--sort",
    "order",
    type=click.Choice(list(_ORDERS)),
    default="age",
    show_default=True,
    help="Which first.",
)
@click.option(
    "--prune",
    "pruning",
    is_flag=True,
    help="Remove the checkpoints of finished runs, after asking.",
)
@click.option("--yes", "-y", is_flag=True, help="With --prune: do not ask.")
@json_option
def runs(folder: Path, order: str, pruning: bool, yes: bool, as_json: bool) -> None:
    """List the runs of a folder: status, progress, loss, size and age.

    FOLDER is runs/ if not given; its runs may be in folders of their own, as those of a sweep are.
    The loss is the lowest one of the held-out text, in nats per character. A run that is stopped
    resumes with `textgen run`.

    A finished run keeps checkpoints to be trained on from, to a greater length. --prune removes
    them, and only them: what is left generates, and is evaluated, as before. It leaves runs alone
    that are not finished.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {what}; give the folder that your runs are in")
    found = sorted(sorted(summaries(folder), key=lambda run: str(run.path)), key=_ORDERS[order])
    if pruning:
        _prune(found, folder, yes=yes, as_json=as_json)
    elif as_json:
        click.echo(json.dumps([as_row(run) for run in found], indent=2, ensure_ascii=False))
    elif not found:
        click.echo(f"textgen: no runs in {folder}", err=True)
    else:
        click.echo(text.table(_HEADER, [_cells(run, folder) for run in found], right=(2, 3, 4, 5)))


def as_row(run: RunSummary) -> dict[str, Any]:
    """A run in JSON, without its record."""
    row = attrs.asdict(run, filter=lambda field, _: field.name != "record")
    row |= {"characters_per_second": run.characters_per_second, "parameters": run.parameters}
    return {"name": run.path.name, **row, "path": str(run.path)}


def _loss(run: RunSummary) -> float | None:
    """The best loss in nats per character; per token where no metrics tell the difference."""
    bits = [row.get("bits_per_character") for row in run.metrics() if row["step"] == run.best_step]
    found = bits[-1] if bits else None
    return run.best_loss if found is None else found * math.log(2)


def _cells(run: RunSummary, folder: Path) -> tuple[str, ...]:
    name = (
        run.path.relative_to(folder.absolute()).as_posix()
        if run.path != folder.absolute()
        else run.path.name
    )
    return (
        name,
        text.status(run),
        text.progress(run.step, run.steps),
        text.loss(_loss(run)),
        text.byte_count(run.bytes),
        text.duration(time.time() - run.changed) if run.changed else "-",
        run.cause.replace(f"{run.path}/", "").partition("\n")[0],
    )


def _prune(found: list[RunSummary], folder: Path, *, yes: bool, as_json: bool) -> None:
    """Remove checkpoints of finished runs, except of those that a link leads to out of the
    folder.
    """
    chosen = [
        run
        for run in found
        if run.status == "finished"
        and run.checkpoint_bytes
        and run.path.resolve().is_relative_to(folder.resolve())
    ]
    if chosen and not yes and not _is_wanted(chosen, folder):
        click.echo("textgen: nothing was removed", err=True)
        return
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


def _is_wanted(chosen: list[RunSummary], folder: Path) -> bool:
    """Say what would be removed and what is lost by it, and ask."""
    rows = [(_cells(run, folder)[0], text.byte_count(run.checkpoint_bytes)) for run in chosen]
    total = text.byte_count(sum(run.checkpoint_bytes for run in chosen))
    runs = text.counted(len(chosen), "finished run")
    click.echo(text.table(("run", "checkpoints"), rows, right=(1,)), err=True)
    click.echo(
        f"The checkpoints of {runs} take {total}. Without them these generate as before, "
        f"but cannot be",
        err=True,
    )
    click.echo("trained on to a greater length: that would start from the beginning.", err=True)
    try:
        return click.confirm("Remove them?", err=True)
    except click.Abort:  # no answer is to be had
        click.echo(err=True)
        raise UsageError(
            "--prune asks before it removes anything; give --yes where nobody can answer"
        ) from None
