"""The mixture of two trained models, and the trainer that weighs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from textgen import BuildContext, Component, NoOptions, UsageError, hookimpl, option
from textgen.protocols import Model, Trainer


@attrs.frozen
class MixtureConfig:
    """Two trained models in one: P = w P1 + (1 - w) P2.

    Linear interpolation, Jelinek and Mercer, "Interpolated estimation of Markov source parameters from sparse data",
    1980. The run directory holds both models, so the runs are needed only until the weight is fitted.
    """

    first: Path = option(help="the run directory of the model that the weight w counts for")
    second: Path = option(help="the run directory of the other, with the same vocabulary")

    def fingerprint(self) -> dict[str, Any]:
        """What shapes the mixture: the weights in both runs and how their models were made, not where they lie.

        Raises UsageError where one is no finished run.
        """
        return {"first": _identity(self.first), "second": _identity(self.second)}


@attrs.frozen
class WeightConfig(NoOptions):
    """Fits a mixture's weight to the held-out text, where its loss is least."""


def build_mixture(config: MixtureConfig, context: BuildContext) -> Model:
    """The models of both runs at equal weight; or, where nothing is to be trained, a model without weights yet."""
    from textgen_ngram.mixture_model import Mixture

    return Mixture.of_runs(config, context) if context.training else Mixture(context)


def build_weight(config: WeightConfig, context: BuildContext) -> Trainer:
    """A trainer at the start."""
    from textgen_ngram.mixture_trainer import WeightTrainer

    return WeightTrainer()


def _identity(run: Path) -> dict[str, Any]:
    """The checksum of a finished run's weights, and its model's table."""
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        return {"model": record["fingerprint"]["model"], "weights": record["files"]["model.safetensors"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"there is no finished run in {run}, and a mixture is made of two; train it first. A mixture that is "
            "trained needs its parts no more: `textgen generate` writes with it"
        ) from error


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `mixture`."""
    return [Component("mixture", MixtureConfig, build_mixture)]


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `mixture`."""
    return [Component("mixture", WeightConfig, build_weight)]
