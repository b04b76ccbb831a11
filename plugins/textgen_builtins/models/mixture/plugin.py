"""A mixture of two models, and the trainer that fits it."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from textgen import BuildContext, Component, ConfiguredComponent, hookimpl, option
from textgen.protocols import Model, Trainer


@attrs.frozen
class MixtureConfig:
    """Two models in one, weighed anew at every token by how sure each of them is.

    The logits are a sum of the models' log probabilities, whose weights a gate computes from their
    entropies and cross-entropies at that token: the mixing of the PAQ compressors (Mahoney,
    "Adaptive weighing of context models for lossless data compression", 2005) for whole tokens. A
    model made of experts, such as `ngram`, is weighed by each of them.
    """

    first: ConfiguredComponent = option(
        {"type": "rnn", "cell": "lstm"},
        kind="model",
        help="the model that takes time to train, such as a network",
    )
    second: ConfiguredComponent = option(
        {"type": "ngram"}, kind="model", help="the model that is quick to train"
    )


@attrs.frozen
class MixtureTrainerConfig:
    """Fits the two models of a mixture, and its gate to text that neither of them was fitted to.

    The gate's own text is the last twentieth of the training text, 20,000 tokens at most. The
    second model is trained to its end before the first begins, and twice: on the text of the first,
    for the gate, and on all of it. The gate is fitted anew at every evaluation.
    """

    first: ConfiguredComponent = option(
        {"type": "adamw"}, kind="trainer", help="the trainer of the first model"
    )
    second: ConfiguredComponent = option(
        {"type": "count"},
        kind="trainer",
        help="the trainer of the second, which should be quick",
    )


def build_model(config: MixtureConfig, context: BuildContext) -> Model:
    """A mixture in equal parts of two models without training."""
    from textgen_builtins.models.mixture.model import Mixture

    def part(choice: ConfiguredComponent, seed: int) -> Model:
        model: Any = context.build(choice, seed=seed)
        if hasattr(model, "fits_gate"):  # the gate of the mixture weighs its experts
            model.fits_gate = False
        made: Model = model
        return made

    # Two alike do not begin alike.
    make_second = partial(part, config.second, context.seed + 1)
    first = part(config.first, context.seed)
    return Mixture(first, make_second(), make_second)


def build_trainer(config: MixtureTrainerConfig, context: BuildContext) -> Trainer:
    """A trainer at the start."""
    from textgen_builtins.models.mixture.trainer import MixtureTrainer

    first, make_second = context.build(config.first), partial(context.build, config.second)
    return MixtureTrainer(first, make_second)


@hookimpl
def textgen_models() -> list[Component]:
    """Offer `mixture`."""
    return [Component("mixture", MixtureConfig, build_model)]


@hookimpl
def textgen_trainers() -> list[Component]:
    """Offer `mixture`."""
    return [Component("mixture", MixtureTrainerConfig, build_trainer)]
