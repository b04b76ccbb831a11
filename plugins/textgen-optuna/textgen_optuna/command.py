"""textgen optuna."""

from __future__ import annotations

import inspect
import json
import shlex
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from textgen import BuildContext, Interrupted, UsageError

if TYPE_CHECKING:
    from textgen_optuna.search import Search, TrialResult

_MANY_UNKNOWN: Final = 0.01  # share of unknown tokens above which bits per character mislead
_PARAMETERS: list[click.Parameter] = [
    click.Argument(["pipeline"], type=click.Path()),
    click.Argument(["space"], type=click.Path()),
    click.Option(
        ["--trials"],
        default=20,
        show_default=True,
        type=click.IntRange(1),
        help="Number of trials, earlier ones included.",
    ),
    click.Option(
        ["--seed"],
        default=0,
        show_default=True,
        type=click.IntRange(0),
        help="Seed of the suggestions.",
    ),
    click.Option(
        ["--sampler"],
        default="tpe",
        show_default=True,
        type=click.Choice(["tpe", "random"]),
        help="Sampler that suggests settings.",
    ),
    click.Option(
        ["--pruning/--no-pruning"],
        default=True,
        help="End poor trials early.",
    ),
    click.Option(
        ["--output", "-o"],
        metavar="DIR",
        help="Folder of the runs and the study; by default, runs/NAME-optuna.",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    click.Option(["--quiet", "-q"], is_flag=True, help="Print no progress."),
]


def make_command(context: BuildContext) -> click.Command:
    """The command, for the plugins of this engine."""
    return click.Command(
        "optuna",
        params=_PARAMETERS,
        callback=partial(_search, context),
        help=inspect.getdoc(_search),
    )


def _search(
    built: BuildContext,
    /,
    pipeline: str,
    space: str,
    trials: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Search for the settings of a pipeline that give the lowest loss, with Optuna.

    SPACE is a TOML file with tables as those of PIPELINE, and a range or a list in place of each
    value to search:

    \b
    [trainer]
    learning_rate = { low = 1e-4, high = 1e-2, log = true }
    [model]
    hidden_size = { low = 64, high = 256, step = 64 }
    cell = ["gru", "lstm"]

    Where the space has a key of the tokenizer, the fewest bits per character count in place of the
    lowest loss. Every trial is an ordinary run. Trials whose held-out loss is above the median of
    the others at the same evaluation end early. The same command again resumes where Ctrl-C or a
    crash ended it, and further commands in the same folder, also on other machines that share it,
    work on the same study.
    """
    switch = _Switch()
    search = _prepared(built, pipeline, space, switch, **options)
    with switch:
        try:
            search.run(trials, partial(_tell, trials=trials, quiet=quiet))
        except Interrupted as stopped:
            cause = f"stopped in {search.folder}; the same command resumes"
            number = switch.number or signal.SIGINT
            raise Interrupted(cause, exit_code=128 + number) from stopped
    _report(search, search.results(), as_json=as_json)


def _prepared(
    built: BuildContext,
    pipeline: str,
    space: str,
    switch: _Switch,
    *,
    output: str | None,
    pruning: bool,
    **options: Any,
) -> Search:
    """The search, checked, in its folder."""
    # Optuna and NumPy are loaded when there is work for them, so that --help need not wait.
    import optuna

    from textgen import Engine
    from textgen_optuna.search import Search
    from textgen_optuna.space import read_space

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = Search(
        engine=Engine(built.plugins),
        pipeline=pipeline,
        space=read_space(space),
        folder=Path(output or "."),
        is_pruned=pruning,
        cancelled=switch.is_on,
        **options,
    )
    name = search.check().name
    if output is None:
        search = attrs.evolve(search, folder=Path("runs", f"{name}-optuna"))
    if (search.folder / "run.json").exists():
        raise UsageError(
            f"{search.folder} is a run directory; give another --output", argument="output"
        )
    return search


def _tell(result: TrialResult, number: int, trials: int, *, quiet: bool) -> None:
    """One line for a trial that is over."""
    if quiet:
        return
    settings = ", ".join(f"{key}={_short(value)}" for key, value in result.settings.items())
    figure = "" if result.figure is None else f" {result.figure:.4f}"
    click.echo(
        f"textgen: trial {number} of {trials}: {settings}: {result.status}{figure}", err=True
    )


def _report(search: Search, results: Sequence[TrialResult], *, as_json: bool) -> None:
    failed = [result for result in results if result.status == "failed"]
    best = results[0] if results and results[0].status == "finished" else None
    command = None if best is None else _command(search, best)
    if as_json:
        by = "bits_per_character" if search.in_bits else "loss"
        rows = [attrs.asdict(result) for result in results]
        whole = {"output": str(search.folder), "by": by, "trials": rows, "best_command": command}
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False))
    else:
        keys = [dimension.key for dimension in search.space]
        table = [
            ["trial", *keys, "bits/char" if search.in_bits else "loss", "evaluations", "status"]
        ]
        for result in results:
            figure = "-" if result.figure is None else f"{result.figure:.4f}"
            values = [_short(result.settings.get(key, "-")) for key in keys]
            table.append([result.name, *values, figure, str(result.evaluations), result.status])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            click.echo(
                "  ".join(
                    cell.ljust(width) for cell, width in zip(row, widths, strict=True)
                ).rstrip()
            )
        if command is not None:
            click.echo(f"\nthe best, which is there already:\n{command}")
    if search.in_bits and (
        partial := [result for result in results if result.unknown_share > _MANY_UNKNOWN]
    ):
        shares = ", ".join(f"{result.unknown_share:.0%} in {result.name}" for result in partial)
        cause = (
            f"some tokens stand for text outside the vocabulary ({shares}), whose "
            f"spelling costs no bits"
        )
        click.echo(
            f"textgen: note: {cause}: these trials cannot be compared with the others", err=True
        )
    for result in failed:
        click.echo(f"textgen: error: {result.name}: {result.error}", err=True)
    if failed:
        raise SystemExit(1)


def _command(search: Search, best: TrialResult) -> str:
    """A function that gives the run of a trial."""
    from textgen_optuna.space import toml

    words = ["textgen", "run", search.pipeline]
    words += [
        word for key, value in best.settings.items() for word in ("--set", f"{key}={toml(value)}")
    ]
    return shlex.join([*words, "--output", str(search.folder / best.name)])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@attrs.define
class _Switch:
    """Turned on by the first Ctrl-C or SIGTERM; the second does what it always did."""

    number: int | None = None
    _previous: dict[int, Any] = attrs.field(factory=dict)

    def is_on(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    def __enter__(self) -> _Switch:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._turn_on)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _turn_on(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()
