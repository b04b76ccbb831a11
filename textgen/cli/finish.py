"""textgen finish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from textgen.cli.options import check_run
from textgen.cli.run import best_step


@click.command("finish")
@click.argument("run", type=click.Path())
@click.pass_obj
def command(context: Any, run: str) -> None:
    """Finish an interrupted run: one of its checkpoints becomes the model.

    The newest one does, or the best if the loss has risen since. RUN is a run directory, such as
    runs/my. From then on `textgen run` of its pipeline skips training. A finished run is left as it
    is.
    """
    check_run(run, "finish")
    from textgen.engine import Engine
    from textgen.runs.directory import RunDirectory

    if not Engine(context.plugins()).finish(run):
        click.echo(f"{run} was finished already, and is left as it is", err=True)
        return
    click.echo(f"finished: {run}{best_step(RunDirectory(Path(run)).read_run())}", err=True)
