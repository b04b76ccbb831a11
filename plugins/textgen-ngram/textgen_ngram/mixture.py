"""The mixture of two trained models, and the trainer that weighs them."""

from __future__ import annotations

from pathlib import Path

import attrs

from textgen import BuildContext, Component, NoOptions, hookimpl, option
from textgen.protocols import Model, Trainer


@attrs.frozen
class MixtureConfig:
    """Two trained models in one: P = w P1 + (1 - w) P2.

    Linear interpolation, Jelinek and Mercer, "Interpolated estimation of Markov source parameters from sparse data",
    1980. The run directory holds both models, so the runs are needed only until the weight is fitted.
    """

    first: Path = option(help="the run directory of the model that the weight w counts for")
    second: Path = option(help="the run directory of the other, with the same vocabulary")


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


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `mixture`."""
    return [Component("mixture", MixtureConfig, build_mixture)]


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `mixture`."""
    return [Component("mixture", WeightConfig, build_weight)]
