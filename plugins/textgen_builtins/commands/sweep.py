"""textgen sweep: a pipeline with many settings."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import click

from textgen import Interrupted, RunSummary, UsageError
from textgen.cli.options import check_pipeline
from textgen_builtins.commands import text
from textgen_builtins.commands.compared import ComparedRun, ranked, read_run
from textgen_builtins.commands.processes import Command, Sweep, run_trials, status_of
from textgen_builtins.commands.results import Ranking, as_text, effects, results
from textgen_builtins.commands.trials import Trial, check_trials, choose_trials, parse_settings

_ENOUGH: Final = 0.1  # trials to be done before the rest is estimated


@click.command("sweep")
@click.argument("pipeline", type=click.Path())
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE,VALUE",
    help="A key of the pipeline and its values, in TOML. May be given several times: every combination is a trial.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only N of the combinations, drawn at random.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of that draw."
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Trials at a time.",
)
@click.option(
    "--output", "-o", metavar="DIR", help="The folder of the runs; runs/NAME-sweep if not given."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_obj
def sweep(
    context: Any,
    /,
    pipeline: str,
    settings: Sequence[str],
    trials: int | None,
    seed: int,
    jobs: int,
    output: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a pipeline with many settings, each in a run directory of its own, and compare them.

    \b
    textgen sweep my.toml --set trainer.learning_rate=1e-3,3e-3 --set model.hidden_size=128,256

    trains four models. Every trial is an ordinary run, called by its settings. The same command again trains none that
    is finished, and resumes those that were stopped. The table at the end says how low the loss of the held-out text
    got, and which settings mattered: how far the mean losses of their values are apart. Where the trials have different
    tokens, bits per character take the place of losses.

    With --jobs the cores are shared out. Ctrl-C stops all trials, each with a checkpoint. A trial that fails does not
    stop the others; the exit code is then 1. What the trials write is in the folder .logs beside them.
    """
    chosen, command = _prepared(context, pipeline, settings, trials, seed, jobs, output)
    progress = Progress(chosen, command, jobs, is_shown=not quiet)
    progress.begin()
    done, signal_number = run_trials(command, chosen, jobs, progress.tell)
    progress.end()
    found = results(chosen, command.folder, done.failed)
    finished = sum(result.status == "finished" for result in found.trials)
    if signal_number:
        cause = f"stopped; {finished} of {text.counted(len(chosen), 'trial')} finished; the same command resumes"
        raise Interrupted(cause, signal_number=signal_number)
    _report(found, chosen, command, as_json=as_json)


def _prepared(
    context: Any,
    pipeline: str,
    settings: Sequence[str],
    number: int | None,
    seed: int,
    jobs: int,
    output: str | None,
) -> tuple[list[Trial], Command]:
    """The trials, whose pipelines are all checked, and how each is run."""
    from textgen import Engine  # which loads NumPy

    given = parse_settings(settings)
    if not given:
        raise UsageError(
            "no setting is given; --set KEY=VALUE,VALUE, as in --set trainer.learning_rate=1e-3,3e-3"
        )
    trials = choose_trials(given, number, seed)
    check_pipeline(pipeline)
    checked = check_trials(Engine(context.plugins()), pipeline, trials)
    folder = Path("runs", f"{checked.name}-sweep") if output is None else Path(output)
    if (folder / "run.json").exists():
        raise UsageError(
            f"{folder} is a run directory; give another --output, in which those of the trials go"
        )
    threads = None if checked.threads is not None or jobs == 1 else max(1, _cores() // jobs)
    return trials, Command(pipeline, folder, _options(context), threads)


@attrs.define
class Progress:
    """One line that says how a sweep stands: written over on a terminal, else again whenever a trial is over."""

    trials: Sequence[Trial]
    command: Command
    jobs: int
    is_shown: bool = True
    _begun: float = attrs.field(factory=time.monotonic)
    _before: dict[str, float] = attrs.field(
        factory=dict
    )  # by trial, the part of it that was done already
    _over: int = 0
    _read: list[ComparedRun] = attrs.field(factory=list)  # of the trials that are finished
    _wide: int = 0

    def begin(self) -> None:
        """Say what is to be done."""
        for trial in self.trials:
            found = status_of(self.command.path(trial))
            self._before[trial.name] = 0.0 if found is None else _part(found)
        threads = self.command.threads
        share = "" if threads is None else f", each with {text.counted(threads, 'thread')}"
        together = f", {self.jobs} at a time{share}" if self.jobs > 1 else ""
        self._say(f"{text.counted(len(self.trials), 'trial')}{together}")

    def tell(self, sweep: Sweep) -> None:
        """Say how it stands."""
        over = len(sweep.finished) + len(sweep.failed)
        for trial in (
            sweep.finished[len(sweep.finished) - (over - self._over) :] if over > self._over else ()
        ):
            found = status_of(sweep.command.path(trial))
            if found is not None:
                self._read.append(read_run(found, trial.name))
        is_terminal = sys.stderr.isatty()
        if self.is_shown and (is_terminal or over > self._over):
            line = self._line(sweep, over)
            if is_terminal:
                self._overwrite(line)
            else:
                self._say(line)
        self._over = over

    def end(self) -> None:
        """Leave the line on a terminal free."""
        if self._wide:
            self._overwrite("")

    def _line(self, sweep: Sweep, over: int) -> str:
        running = [
            found
            for trial, _ in sweep.running.values()
            if (found := status_of(sweep.command.path(trial)))
        ]
        steps = [
            text.progress(found.step, found.steps) for found in running if found.step is not None
        ]
        said = [f"{over} of {len(self.trials)} done"]
        said += [f"{len(sweep.failed)} failed"] if sweep.failed else []
        shown = f" (step {', '.join(steps)})" if steps else ""
        said += [f"{len(sweep.running)} running{shown}"] if sweep.running else []
        said += (
            [f"{len(sweep.waiting)} run elsewhere"] if sweep.waiting and not sweep.running else []
        )
        for figure, best in ranked(self._read)[:1]:
            said.append(f"best {text.loss(figure)}: {best.label}")
        part = (
            over
            + sum(map(_part, running))
            + sum(self._before[trial.name] for trial in sweep.waiting)
        )
        done = part - sum(self._before.values())
        if done > _ENOUGH and over < len(self.trials):
            rest = (time.monotonic() - self._begun) * (len(self.trials) - part) / done
            said += [f"about {text.duration(rest)} to go"] if rest >= 1 else []
        return "; ".join(said)

    def _say(self, line: str) -> None:
        if self.is_shown:
            click.echo(f"textgen: {line}", err=True)

    def _overwrite(self, line: str) -> None:
        line = line[: shutil.get_terminal_size().columns - 1]
        click.echo(f"\r{line.ljust(self._wide)}\r{line}", nl=False, err=True)
        self._wide = len(line)


def _part(found: RunSummary) -> float:
    """How much of a run is done."""
    return (
        1.0
        if found.status == "finished"
        else (found.step or 0) / found.steps
        if found.steps
        else 0.0
    )


def _report(found: Ranking, trials: Sequence[Trial], command: Command, *, as_json: bool) -> None:
    if as_json:
        rows, made = [attrs.asdict(result) for result in found.trials], []
        for effect in effects(found):
            means = [
                {"value": value, found.by: mean, "trials": n} for value, mean, n in effect.means
            ]
            made.append({"key": effect.key, "spread": effect.spread, "means": means})
        whole = {
            "output": str(command.folder),
            "by": found.by,
            "note": found.note,
            "trials": rows,
            "effects": made,
        }
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False, default=str))
    else:
        click.echo(as_text(found, trials))
    failed = [result for result in found.trials if result.status != "finished"]
    logs = {trial.name: command.log(trial) for trial in trials}
    for result in failed:
        why = text.printable(result.error or "it is not finished")
        click.echo(
            f"textgen: error: {result.name}: {why}; all it wrote: {logs[result.name]}", err=True
        )
    if failed:
        raise SystemExit(1)


def _options(context: Any) -> tuple[str, ...]:
    """The options before the subcommand, for the processes of the trials."""
    disabled = [word for name in context.disable for word in ("--no-plugin", name)]
    return (*disabled, *(word for path in context.plugin_files for word in ("--plugin", path)))


def _cores() -> int:
    """Of this machine, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
