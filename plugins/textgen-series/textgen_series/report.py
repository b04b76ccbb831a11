"""The worth of a run's forecasts: errors of the model and of the linear autoregression, on the
same values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from textgen import Engine, UsageError
from textgen_series import linear
from textgen_series.bins import BinsTokenizer
from textgen_series.forecasting import Forecast, forecast
from textgen_series.numbers import read_blocks

Values = npt.NDArray[np.float64]


@attrs.frozen(kw_only=True)
class Settings:
    """The options of `textgen forecast`."""

    steps: tuple[int, ...] = (1, 4, 16, 64)
    samples: int = 100
    band: float = 0.8
    context: int | None = None
    lags: int = 4
    seed: int = 0


@attrs.frozen(eq=False, kw_only=True)
class Horizon:
    """Forecasts `k` steps ahead of the N values at `targets`, all arrays (N,)."""

    k: int
    targets: npt.NDArray[np.int64]
    actual: Values
    fed_back: Values
    sampled: Values
    low: Values
    high: Values
    linear: Values

    def summary(self) -> dict[str, Any]:
        """Errors of each forecast, and the share of values inside the band."""
        return {
            "k": self.k,
            "targets": len(self.targets),
            **{
                name: _errors(getattr(self, name) - self.actual)
                for name in ("fed_back", "sampled", "linear")
            },
            "inside_band": float(np.mean((self.low <= self.actual) & (self.actual <= self.high))),
        }


@attrs.frozen(eq=False, kw_only=True)
class Report:
    """All of `textgen forecast`: the values (N,), how many of them were trained on, and a Horizon
    for each k.
    """

    values: Values
    training: int
    context: int
    settings: Settings
    horizons: tuple[Horizon, ...]

    def summary(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "values": len(self.values),
            "training_values": self.training,
            "context": self.context,
            **{name: getattr(self.settings, name) for name in ("lags", "samples", "band", "seed")},
            "results": [horizon.summary() for horizon in self.horizons],
        }

    def table(self) -> str:
        """The report as a table for a terminal."""
        samples, band = self.settings.samples, f"{self.settings.band:.0%} band"
        rows = [
            f"trained on values 1 to {self.training:,}, forecast {self.training + 1:,} to "
            f"{len(self.values):,}; the "
            f"model looks back {self.context}, the linear autoregression {self.settings.lags}",
            f"{'':>4} {'':>8}  {'model,':>17}  {'model, mean of':>17}  {'linear auto-':>17}",
            f"{'':>4} {'':>8}  {'mean fed back':>17}  {f'{samples} samples':>17}  "
            f"{'regression':>17}  {'inside':>9}",
            f"{'k':>4} {'targets':>8}" + f"  {'RMSE':>8} {'MAE':>8}" * 3 + f"  {band:>9}",
        ]
        for row in (horizon.summary() for horizon in self.horizons):
            errors = "".join(
                f"  {row[name]['rmse']:8.4f} {row[name]['mae']:8.4f}"
                for name in ("fed_back", "sampled", "linear")
            )
            rows.append(f"{row['k']:>4} {row['targets']:>8}{errors}  {row['inside_band']:9.1%}")
        return "\n".join(rows)


def make_report(engine: Engine, run: Path, settings: Settings, device: str = "auto") -> Report:
    """Forecast the values that a finished run did not train on.

    Raises UsageError where that cannot be.
    """
    generator = engine.load(run, device=device)
    tokenizer = generator.tokenizer
    if not isinstance(tokenizer, BinsTokenizer):
        raise UsageError(
            f"the tokenizer of {run} must be 'bins' of textgen-series, whose tokens are numbers"
        )
    pieces = (
        piece for piece in engine.read_corpus(generator.tables["corpus"]) if isinstance(piece, str)
    )
    values = np.concatenate(list(read_blocks(pieces)))
    training: int = generator.record["data"]["training_tokens"]  # a token is a value
    context = (
        generator.tables["data"]["window_length"] if settings.context is None else settings.context
    )
    _check(len(values), training, context, settings)
    # Each origin is the last value known. The first forecast is of the first value not trained on.
    origins = np.arange(training - 1, len(values) - min(settings.steps))
    ahead = max(settings.steps)
    made = forecast(
        generator,
        tokenizer,
        values,
        origins,
        steps=ahead,
        context=context,
        samples=settings.samples,
        band=settings.band,
        seed=settings.seed,
    )
    coefficients = linear.fit(values[:training], settings.lags)
    regression = linear.forecast(values, origins, coefficients, ahead)
    horizons = tuple(_horizon(k, values, origins, made, regression) for k in settings.steps)
    return Report(
        values=values, training=training, context=context, settings=settings, horizons=horizons
    )


def _horizon(
    k: int, values: Values, origins: npt.NDArray[np.int64], made: Forecast, regression: Values
) -> Horizon:
    targets = origins + k
    there = targets < len(values)
    targets = targets[there]
    arrays = {
        name: getattr(made, name)[there, k - 1] for name in ("fed_back", "sampled", "low", "high")
    }
    return Horizon(
        k=k, targets=targets, actual=values[targets], linear=regression[there, k - 1], **arrays
    )


def _check(count: int, training: int, context: int, settings: Settings) -> None:
    held_out, ahead = count - training, max(settings.steps)
    if held_out < ahead:
        raise UsageError(
            f"the series has {held_out} values after the {training} that the run trained "
            f"on, and --steps {ahead} needs "
            f"{ahead}; lower it, or train on less (data.windows)"
        )
    if context > training:
        raise UsageError(
            f"--context {context} is more than the {training} values before the first forecast"
        )
    if training < 2 * settings.lags + 1:
        raise UsageError(
            f"--lags {settings.lags} needs {2 * settings.lags + 1} training values; there "
            f"are {training}"
        )


def _errors(differences: Values) -> dict[str, float]:
    return {
        "rmse": float(np.sqrt(np.mean(differences**2))),
        "mae": float(np.mean(np.abs(differences))),
    }
