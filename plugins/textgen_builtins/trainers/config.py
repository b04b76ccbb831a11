"""The options of the built-in trainers."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt, optional

from textgen import option


@attrs.frozen(kw_only=True)
class GradientConfig:
    """What every trainer by gradient takes."""

    epochs: int = option(10, help="passes over the training data", validator=ge(1))
    batch_size: int = option(64, help="windows, or streams, per step", validator=ge(1))
    order: Literal["shuffled", "streams"] = option(
        "shuffled",
        help='"shuffled": windows in random order, each from the start state; "streams": batch_size places of the '
        "text read on side by side, the state carried from window to window",
    )
    gradient_clipping: Literal["norm", "normalize", "off"] = option(
        "norm",
        help='"norm" shrinks a gradient of a larger global norm to gradient_norm, as the book defines it; '
        '"normalize" always rescales to it, as the book\'s code did',
    )
    gradient_norm: float = option(1.0, help="the global norm for gradient_clipping", validator=gt(0))
    evaluate_every: int | None = option(
        None, help="steps between evaluations; once an epoch if not set", validator=optional(ge(1))
    )
    validation_batches: int | None = option(
        None, help="validate on the first batches only, so many", validator=optional(ge(1))
    )


@attrs.frozen(kw_only=True)
class SGDConfig(GradientConfig):
    """Stochastic gradient descent with momentum and gradient clipping.

    Dive into Deep Learning, sections "Optimization Algorithms" and "Recurrent Neural Networks".
    """

    learning_rate: float = option(1.0, help="size of a step", validator=gt(0))
    momentum: float = option(0.0, help="share of the last step kept", validator=and_(ge(0), lt(1)))


@attrs.frozen(kw_only=True)
class AdamWConfig(GradientConfig):
    """Adam with decoupled weight decay, warm-up and cosine decay.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019) and "SGDR" (2017).
    """

    learning_rate: float = option(2e-3, help="size of a step at its highest", validator=gt(0))
    weight_decay: float = option(0.01, help="share of a weight lost per step, times the rate", validator=ge(0))
    beta1: float = option(0.9, help="memory of the gradient's mean", validator=and_(ge(0), lt(1)))
    beta2: float = option(0.99, help="memory of the gradient's square", validator=and_(ge(0), lt(1)))
    warmup_steps: int = option(0, help="steps over which the rate rises from zero", validator=ge(0))
    final_rate: float = option(
        0.1, help="what the cosine ends at, as a share of learning_rate; 1 keeps the rate", validator=and_(ge(0), le(1))
    )
