"""textgen forecast."""

from __future__ import annotations

import inspect
import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from textgen import BuildContext, UsageError

_PARAMETERS: list[click.Parameter] = [
    click.Argument(["run"], type=click.Path(path_type=Path)),
    click.Option(
        ["--steps"], default="1,4,16,64", show_default=True, help="Numbers of steps ahead."
    ),
    click.Option(
        ["--samples"],
        default=100,
        show_default=True,
        type=click.IntRange(1),
        help="Number of sampled continuations.",
    ),
    click.Option(
        ["--band"],
        default=0.8,
        show_default=True,
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Probability between the band's quantiles.",
    ),
    click.Option(
        ["--context"],
        type=click.IntRange(1),
        help="Number of values that the model reads first.  [default: the run's window]",
    ),
    click.Option(
        ["--lags"],
        default=4,
        show_default=True,
        type=click.IntRange(1),
        help="Lags of the linear autoregression.",
    ),
    click.Option(
        ["--seed"],
        default=0,
        show_default=True,
        type=click.IntRange(0, 2**64 - 1),
        help="Seed of the continuations.",
    ),
    click.Option(
        ["--output"],
        type=click.Path(path_type=Path),
        help="File of the plot.  [default: forecast.svg in RUN]",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    click.Option(
        ["--device"],
        default="auto",
        show_default=True,
        metavar="NAME",
        help='"auto", "cpu", "cuda", "cuda:N" or "mps".',
    ),
]


def make_command(context: BuildContext) -> click.Command:
    """The command, for the plugins of this engine."""
    return click.Command(
        "forecast",
        params=_PARAMETERS,
        callback=partial(_forecast, context),
        help=inspect.getdoc(_forecast),
    )


def _forecast(
    built: BuildContext,
    /,
    run: Path,
    steps: str,
    output: Path | None,
    as_json: bool,
    device: str,
    **options: Any,
) -> None:
    """Forecast the held-out part of a series, beside a linear autoregression.

    RUN is the directory of a finished run whose tokenizer is `bins`. What comes after its training
    values is forecast from every value before, by feeding predictions back: the mean of the model's
    distribution over the bins' centres, and sampled continuations, whose quantiles make the band.
    The regression is fitted by least squares on the training values, and its predictions are fed
    back too.
    """
    # Numerical libraries are loaded when there is work for them, so that --help need not wait.
    from textgen import Engine
    from textgen_series.plot import draw
    from textgen_series.report import Settings, make_report

    settings = Settings(steps=_steps(steps), **options)
    report = make_report(Engine(built.plugins), run, settings, device)
    output = output or run / "forecast.svg"
    try:
        output.write_text(draw(report), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{output} cannot be written: {error.strerror or error}; see --output"
        ) from error
    click.echo(json.dumps({**report.summary(), "plot": str(output)}) if as_json else report.table())
    click.echo(f"plot: {output}", err=True)


def _steps(text: str) -> tuple[int, ...]:
    """`1,4,16,64` as increasing numbers. Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(
            f"--steps must be whole numbers from 1 with commas between, as in 1,4,16,64, "
            f"and is {text!r}"
        )
    return tuple(sorted({int(part) for part in parts}))
