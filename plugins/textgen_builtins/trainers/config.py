"""The options of the built-in trainers."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, gt, le, lt

from textgen import option
from textgen.gradient import GradientOptions


@attrs.frozen(kw_only=True)
class SGDConfig(GradientOptions):
    """Stochastic gradient descent with momentum and gradient clipping.

    Dive into Deep Learning, sections "Optimization Algorithms" and "Recurrent Neural Networks".
    """

    learning_rate: float = option(1.0, help="learning rate", validator=gt(0))
    momentum: float = option(
        0.0, help="share of the previous step that is kept", validator=and_(ge(0), lt(1))
    )


@attrs.frozen(kw_only=True)
class AdamWConfig(GradientOptions):
    """Adam with decoupled weight decay, and a learning rate that warms up, stays, and decays to
    zero.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019); Hu and others, "MiniCPM"
    (2024).
    """

    learning_rate: float = option(2e-3, help="highest learning rate", validator=gt(0))
    weight_decay: float = option(
        0.01, help="share of each weight subtracted per step, times the rate", validator=ge(0)
    )
    warmup_steps: int = option(
        0, help="steps in which the learning rate rises from zero", validator=ge(0)
    )
    decay_share: float = option(
        0.5,
        help="share of all steps, at the end, in which the learning rate falls to zero in a "
        "straight line; 0 keeps it constant",
        validator=and_(ge(0), le(1)),
    )
    average_share: float = option(
        0.0,
        help="share of the steps so far, about the last, whose weights' mean evaluations and the "
        "run's model have; 0 is the last weights",
        validator=and_(ge(0), le(1)),
    )
