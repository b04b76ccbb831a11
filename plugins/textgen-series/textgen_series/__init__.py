"""Real-valued series for textgen: the corpus `series`, the tokenizer `bins`, and the command
`forecast`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs
from attrs.validators import and_, ge, le, lt, max_len, min_len

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Corpus, Tokenizer

if TYPE_CHECKING:
    import click


@attrs.frozen
class SeriesConfig:
    """A noisy sine, or a column of a CSV file, as one number a line.

    The sine is that of Dive into Deep Learning, "Working with Sequences": x(t) = sin(frequency t) +
    noise e(t) for t = 1 to length, where e(t) is standard normal.
    """

    path: Path | None = option(None, help="a CSV file; the noisy sine if not set")
    column: int | str = option(
        1, help="the column's number, from 1, or its name in the file's first row"
    )
    delimiter: str = option(
        ",", help="what separates the columns", validator=and_(min_len(1), max_len(1))
    )
    length: int = option(1000, help="values of the noisy sine", validator=and_(ge(1), le(10**9)))
    frequency: float = option(0.01, help="radians from one value of the sine to the next")
    noise: float = option(0.2, help="standard deviation of the noise", validator=ge(0))
    seed: int = option(0, help="of the noise", validator=and_(ge(0), lt(2**64)))

    def __attrs_post_init__(self) -> None:
        if isinstance(self.column, int) and self.column < 1:
            raise ValueError(f"column counts from 1, and is {self.column}")


@attrs.frozen
class BinsConfig:
    """One token per number: the bin it falls into.

    The text is one number a line. Numbers below or above what the tokenizer was fitted on fall into
    the first or the last bin. A token is written as its bin's centre.
    """

    bins: int = option(
        64,
        help="how many, at most: bins of equal numbers are merged",
        validator=and_(ge(1), le(2**20)),
    )
    spacing: Literal["uniform", "quantile"] = option(
        "uniform",
        help='"uniform": bins of one width; "quantile": bins that hold equally many numbers',
    )
    low: float | None = option(
        None, help="where uniform bins begin; the smallest number of the corpus if not set"
    )
    high: float | None = option(
        None, help="where uniform bins end; the largest number of the corpus if not set"
    )

    def __attrs_post_init__(self) -> None:
        if self.spacing == "quantile" and (self.low is not None or self.high is not None):
            raise ValueError("low and high are of uniform bins, and spacing is quantile")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high, given {self.low} and {self.high}")


@attrs.frozen
class ForecastConfig:
    """Forecasts the held-out part of a series with a trained run, beside a linear
    autoregression.
    """


def build_series(config: SeriesConfig, context: BuildContext) -> Corpus:
    """A noisy sine or a CSV column."""
    from textgen_series.corpora import CSVColumn, NoisySine

    return NoisySine(config) if config.path is None else CSVColumn(config, config.path)


def build_bins(config: BinsConfig, context: BuildContext) -> Tokenizer:
    """An unfitted tokenizer."""
    from textgen_series.bins import BinsTokenizer

    return BinsTokenizer(config)


def build_forecast(config: ForecastConfig, context: BuildContext) -> click.Command:
    """The command, for the plugins of this engine."""
    from textgen_series.command import make_command

    return make_command(context)


@hookimpl
def textgen_corpora() -> list[Component]:
    """Offer `series`."""
    return [Component("series", SeriesConfig, build_series)]


@hookimpl
def textgen_tokenizers() -> list[Component]:
    """Offer `bins`."""
    return [Component("bins", BinsConfig, build_bins)]


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `forecast`."""
    return [Component("forecast", ForecastConfig, build_forecast)]
