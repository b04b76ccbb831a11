"""textgen run."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from textgen.cli.options import set_option
from textgen.cli.signal_switch import SignalSwitch
from textgen.errors import Interrupted

if TYPE_CHECKING:
    from textgen.engine import Run

_INTERRUPTING: Final = (
    "\ninterrupting after this step and a checkpoint; "
    "again to interrupt at once, which loses the steps since the last checkpoint\n"
)


@click.command("run")
@click.argument("pipeline", type=click.Path())
@set_option
@click.option("--output", "-o", metavar="DIR", help="Run directory, in place of the pipeline's.")
@click.option("--device", metavar="NAME", help='"auto", "cpu", "cuda", "cuda:N" or "mps".')
@click.option(
    "--overwrite",
    is_flag=True,
    help="Train again. A finished run in the directory stays until the new one is finished.",
)
@click.option(
    "--update",
    is_flag=True,
    help="If the text has changed, train the finished model further on it, and replace the run.",
)
@click.option(
    "--finish",
    is_flag=True,
    help="Finish an unfinished run: its newest checkpoint becomes the model, or the best one "
    "if the loss has risen since.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print no progress.")
@click.pass_obj
def command(
    context: Any,
    /,
    pipeline: str,
    overrides: tuple[str, ...],
    device: str | None,
    output: str | None,
    finish: bool,
    quiet: bool,
    **how: bool,
) -> None:
    """Train the model of a pipeline, then print a text.

    PIPELINE is a TOML file; `textgen init my.txt` writes one for your text. The default run
    directory is runs/NAME, with the name of the file.

    A finished run is not trained again, and an unfinished one resumes. If you raise the length, or
    if the text has changed and you give --update, a finished run is trained further. A run of
    another pipeline is replaced only with --overwrite.

    The text goes to stdout, everything else to stderr.

    \b
    Several processes train a run together with torchrun:
    torchrun --nproc-per-node 2 -m textgen run PIPELINE
    """
    from textgen.engine import Engine
    from textgen.processes import Processes

    if device is not None:
        overrides = (*overrides, f"device={json.dumps(device)}")
    engine, processes = Engine(context.plugins), Processes.of_environment()
    leads = processes is None or processes.leads
    if finish and leads:
        path = output or engine.pipeline(pipeline, overrides).output
        if engine.finish(path):
            click.echo(f"finished: {path}", err=True)
    console = sys.stderr if leads and not quiet else None
    switch = SignalSwitch(message="" if console is None else _INTERRUPTING)
    with contextlib.nullcontext() if processes is None else processes.joined():
        try:
            run = engine.run(
                pipeline,
                overrides,
                output=output,
                console=console,
                observers=[partial(_observe, switch, console)],
                cancelled=switch.is_on,
                processes=processes,
                **how,
            )
        except Interrupted as error:
            if switch.signal_number is not None:
                error.exit_code = 128 + switch.signal_number
            raise
    run.generator.close()  # its texts are made
    if leads:
        _print(run, quiet=quiet)


def _print(run: Run, *, quiet: bool) -> None:
    from textgen.cli.output import write_text

    if not quiet:
        click.echo(f"{run.outcome}: {run.path}{_ended(run.generator.record)}", err=True)
    is_several = len(run.generations) > 1
    for number, generation in enumerate(run.generations, 1):
        write_text(str(generation), number if is_several else 0)


def _ended(record: Mapping[str, Any]) -> str:
    """The step that the weights are of, which need not be the last that the progress showed, and
    who stopped it early.
    """
    text = ""
    loss, stopped = record.get("best_loss"), record.get("stopped")
    if loss is not None and record["data"]["validation_tokens"]:
        step = f"step {record['best_step']} of {record['step']}"
        best = record["best_objective"]
        what = "objective" if best != loss else "validation loss"
        text = f" ({step}, with the lowest {what}: {best:.3f})"
    if stopped is not None:
        text += f"; {stopped['by']} stopped it at step {record['step']}: {stopped['reason']}"
    return text


def _observe(switch: SignalSwitch, console: TextIO | None, event: Any) -> None:
    """Say that an unfinished run is resumed, and take signals over while a model trains."""
    from textgen.events import RunFinished, RunStarted

    if isinstance(event, RunStarted):
        switch.take_over()
        if console is not None and event.step:
            click.echo(f"resuming after step {event.step}", file=console)
    elif isinstance(event, RunFinished):
        switch.give_back()
