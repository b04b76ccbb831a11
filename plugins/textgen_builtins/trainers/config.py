"""The options of the built-in trainers."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt, optional

from textgen import option


@attrs.frozen(kw_only=True)
class GradientConfig:
    """The options that all gradient trainers share."""

    epochs: int = option(10, help="passes over the training data", validator=ge(1))
    batch_size: int = option(64, help="number of windows, or streams, per step", validator=ge(1))
    order: Literal["shuffled", "streams"] = option(
        "shuffled",
        help='"shuffled": windows in random order, each from the start state; "streams": the text is read '
        "from batch_size positions in parallel, with the state carried from window to window",
    )
    gradient_clipping: Literal["norm", "normalize", "off"] = option(
        "norm",
        help='"norm" scales a gradient with a larger global norm down to gradient_norm, as the book defines it; '
        '"normalize" always rescales to it, as the book\'s code did',
    )
    gradient_norm: float = option(1.0, help="global norm for gradient_clipping", validator=gt(0))
    evaluate_every: int | None = option(
        None, help="steps between evaluations; one epoch if not set", validator=optional(ge(1))
    )
    validation_batches: int | None = option(
        None, help="number of batches to validate on, from the start", validator=optional(ge(1))
    )


@attrs.frozen(kw_only=True)
class SGDConfig(GradientConfig):
    """Stochastic gradient descent with momentum and gradient clipping.

    Dive into Deep Learning, sections "Optimization Algorithms" and "Recurrent Neural Networks".
    """

    learning_rate: float = option(1.0, help="learning rate", validator=gt(0))
    momentum: float = option(0.0, help="share of the previous step that is kept", validator=and_(ge(0), lt(1)))


@attrs.frozen(kw_only=True)
class AdamWConfig(GradientConfig):
    """Adam with decoupled weight decay, warm-up and cosine decay.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019) and "SGDR" (2017).
    """

    learning_rate: float = option(2e-3, help="highest learning rate", validator=gt(0))
    weight_decay: float = option(0.01, help="share of each weight subtracted per step, times the rate", validator=ge(0))
    beta1: float = option(0.9, help="decay of the gradient's running mean", validator=and_(ge(0), lt(1)))
    beta2: float = option(0.99, help="decay of the gradient's running mean square", validator=and_(ge(0), lt(1)))
    warmup_steps: int = option(0, help="steps in which the learning rate rises from zero", validator=ge(0))
    final_rate: float = option(
        0.1, help="final learning rate, as a share of learning_rate; 1 keeps it constant", validator=and_(ge(0), le(1))
    )
