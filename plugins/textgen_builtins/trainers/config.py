"""The options of the built-in trainers."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt

from textgen import option
from textgen.gradient import GradientOptions

_share = and_(ge(0), le(1))


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
    """Adam with decoupled weight decay, warm-up, and decay of the learning rate.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019) and "SGDR" (2017).
    """

    learning_rate: float = option(2e-3, help="highest learning rate", validator=gt(0))
    weight_decay: float = option(
        0.01, help="share of each weight subtracted per step, times the rate", validator=ge(0)
    )
    beta1: float = option(
        0.9, help="decay of the gradient's running mean", validator=and_(ge(0), lt(1))
    )
    beta2: float = option(
        0.99, help="decay of the gradient's running mean square", validator=and_(ge(0), lt(1))
    )
    schedule: Literal["cosine", "decay"] = option(
        "cosine",
        help='"cosine" lowers the learning rate along half a cosine; "decay" keeps it, and lowers it in a straight '
        "line in the last decay_share of all steps",
    )
    decay_share: float = option(
        0.5, help='share of the steps that schedule = "decay" ends with', validator=_share
    )
    warmup_steps: int = option(
        0, help="steps in which the learning rate rises from zero", validator=ge(0)
    )
    final_rate: float = option(
        0.1,
        help="final learning rate, as a share of learning_rate; 1 keeps it constant",
        validator=_share,
    )
