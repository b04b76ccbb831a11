"""textgen sweep: a pipeline with every combination of some values."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from textgen import Fault, Interrupted, PipelineError, TextgenError, UsageError
from textgen.cli import check_pipeline, json_option, train
from textgen.messages import quoted
from textgen.pipeline import inline_toml, toml_value
from textgen_builtins.commands import text
from textgen_builtins.commands.columns import as_row, cells
from textgen_builtins.commands.compared import have_other_tokens, ranked, read_run, warning
from textgen_builtins.commands.folders import summaries

if TYPE_CHECKING:
    from textgen import Engine, Pipeline

_MOST_TRIALS: Final = 1000
_LONGEST_NAME: Final = 80  # of a folder: the paths in it are within what Windows takes


@attrs.frozen
class Trial:
    """A run of a sweep: the name of its run directory, and its value of each key."""

    name: str
    settings: dict[str, Any]

    @property
    def overrides(self) -> list[str]:
        """The settings as `textgen run --set` takes them."""
        return [f"{key}={inline_toml(value)}" for key, value in self.settings.items()]


@click.command("sweep")
@click.argument("pipeline", type=click.Path())
@click.option(
    "--set",
    "settings",
    multiple=True,
    required=True,
    metavar="KEY=VALUE,VALUE",
    help="A key of the pipeline and its values, in TOML. May be given several times: every "
    "combination is a trial.",
)
@click.option(
    "--output", "-o", metavar="DIR", help="The folder of the runs; runs/NAME-sweep if not given."
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_obj
def sweep(
    context: Any,
    /,
    pipeline: str,
    settings: Sequence[str],
    output: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a pipeline with every combination of some values, one run after the other, and compare
    them.

    \b
    textgen sweep my.toml --set trainer.learning_rate=1e-3,3e-3 --set model.hidden_size=128,256

    trains four models. Every trial is an ordinary run, called by its settings. The same command
    again trains none that is finished, and resumes one that was stopped. A trial that fails does
    not stop the others; the exit code is then 1. The trials are ranked by the loss of the held-out
    text, or by bits per character where their tokens differ.
    """
    from textgen import Engine  # which loads NumPy

    check_pipeline(pipeline)
    trials = parse_trials(settings)
    engine = Engine(context.plugins())
    first, *_ = [_checked(engine, pipeline, trial) for trial in trials]
    folder = Path("runs", f"{first.name}-sweep") if output is None else Path(output)
    if (folder / "run.json").exists():
        raise UsageError(f"{folder} is a run directory; --output is the folder of the trials' own")
    failed = {}
    for number, trial in enumerate(trials, 1):
        if not quiet:
            click.echo(f"trial {number} of {len(trials)}: {trial.name}", err=True)
        try:
            run = train(
                engine,
                pipeline,
                trial.overrides,
                console=None if quiet else sys.stderr,
                output=folder / trial.name,
            )
            run.generator.close()
        except Interrupted as stopped:
            cause = f"stopped in trial {number} of {len(trials)}; the same command resumes"
            raise Interrupted(cause, exit_code=stopped.exit_code) from stopped
        except TextgenError as error:
            failed[trial.name] = str(error)
            click.echo(f"textgen: error: {trial.name}: {error}", err=True)
    _report(folder, trials, failed, as_json=as_json)
    if failed:
        raise SystemExit(1)


def parse_trials(given: Iterable[str]) -> list[Trial]:
    """Every combination of the values in KEY=VALUE,VALUE. Raises UsageError with every fault."""
    grid: dict[str, list[Any]] = {}
    faults: list[Fault] = []
    for override in given:
        key, equals, values = override.partition("=")
        key = ".".join(part.strip() for part in key.split("."))
        found = list(_values(values))
        shown = [inline_toml(value) for value in found if not isinstance(value, Fault)]
        if not equals or not all(key.split(".")):
            wanted = "expected KEY=VALUE,VALUE as in trainer.learning_rate=1e-3,3e-3"
            faults.append(Fault("", wanted, repr(override)))
        elif key in grid:
            faults.append(Fault(key, "given twice", "", "put all values into one --set"))
        elif key == "output":
            faults.append(Fault(key, "each trial has its own", "", "--output is for the folder"))
        elif "" in found or len(set(shown)) < len(shown):
            faults.append(Fault(key, "expected values that differ between commas", repr(values)))
        faults += [attrs.evolve(value, path=key) for value in found if isinstance(value, Fault)]
        grid[key] = found
    if faults:
        raise UsageError(faults=faults)
    if (total := math.prod(map(len, grid.values()))) > _MOST_TRIALS:
        raise UsageError(f"the grid has {total:,} trials, and {_MOST_TRIALS:,} at most are run")
    combinations = itertools.product(*grid.values())
    return [_trial(dict(zip(grid, values, strict=True))) for values in combinations]


def _values(given: str) -> Iterator[Any]:
    """The values between commas: TOML, or strings without quotes."""
    whole = toml_value(f"[{given}]")
    if isinstance(whole, list):
        yield from whole
    else:
        yield from (toml_value(part.strip()) for part in given.split(","))


def _checked(engine: Engine, pipeline: str, trial: Trial) -> Pipeline:
    try:
        return engine.pipeline(pipeline, trial.overrides)
    except PipelineError as error:
        where = f"in the trial {trial.name}"
        faults = [
            attrs.evolve(fault, hint=f"{fault.hint}; {where}" if fault.hint else where)
            for fault in error.faults
        ]
        raise PipelineError(faults, error.source) from error


def _trial(settings: dict[str, Any]) -> Trial:
    """The trial, with a name that is a folder's on every system and the same for the same settings.

    Where capitals or a last dot may be all that tells two trials apart, a digest does: Windows and
    macOS ignore case.
    """
    short = _short_names(settings)
    whole = ",".join(f"{short[key]}={_shown(value)}" for key, value in sorted(settings.items()))
    name = re.sub(r"[^\w.+,=-]+", "-", whole, flags=re.ASCII)
    if name.lower().rstrip(".") != whole or len(name) > _LONGEST_NAME:
        told = json.dumps(sorted(settings.items()), default=str)
        name = f"{name[:_LONGEST_NAME]}~{hashlib.sha256(told.encode()).hexdigest()[:6]}"
    return Trial(name, settings)


def _short_names(keys: Iterable[str]) -> dict[str, str]:
    """Each key by its last part, if no other ends so."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {
        key: key if end == "type" or ends.count(end) > 1 else end
        for key, end in zip(keys, ends, strict=True)
    }


def _shown(value: Any) -> str:
    """A value: a string without quotes, unless it would then read as another value."""
    is_plain = isinstance(value, str) and toml_value(value) == value
    return value if is_plain else inline_toml(value)


def _report(
    folder: Path, trials: Sequence[Trial], failed: dict[str, str], *, as_json: bool
) -> None:
    """Print the trials, the best first."""
    settings = {trial.name: trial.settings for trial in trials}
    found = [
        read_run(summary, trial.name)
        for trial in trials
        for summary in summaries(folder / trial.name, depth=0)
    ]
    order = ranked(found)
    in_bits = have_other_tokens(found)
    by = "bits_per_character" if in_bits else "loss"
    note = warning(found)
    if as_json:
        ranking = [
            as_row(run, settings=settings[run.label], error=failed.get(run.label, ""))
            for _, run in order
        ]
        whole = {
            "output": str(folder),
            "by": by,
            "note": note,
            "trials": ranking,
        }
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False, default=str))
        return
    short = _short_names(trials[0].settings)
    varied = [key for key in short if len({_shown(each.settings[key]) for each in trials}) > 1]
    columns = ["bits/char" if in_bits else "loss", "best step", "seconds"]
    rows = [
        [
            *(_shown(settings[run.label][key]) for key in varied),
            *cells(run, columns),
            "failed" if run.label in failed else text.status(run.summary),
        ]
        for _, run in order
    ]
    header = [*(short[key] for key in varied), *columns, "status"]
    click.echo(text.table(header, rows, right=range(len(varied), len(varied) + 3)))
    if note:
        click.echo(f"note: {note}")
    if order and order[0][1].label not in failed:
        best = quoted(str(folder / order[0][1].label))
        click.echo(f"\nthe best: textgen generate {text.printable(best)}")
