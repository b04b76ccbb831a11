"""The parts of trainers and models by gradient. torch is imported when they are used.

GradientTrainer   a trainer with this training loop, an optimizer and a schedule
GradientOptions   the options of the loop; a trainer's config is a subclass
Parameters        the parameters for an optimizer, by role; MakeOptimizer is the function that makes
                  it
eager             an optimizer class of torch without torch's compiler, which is slow to import
constant, cosine, warmup_stable_decay   schedules of the learning rate; Schedule is their type
GradientModel     adds decoding, saving and loading to a torch.nn.Module
ForwardDecoder    generates with any `forward(tokens, state)`
"""

from __future__ import annotations

import importlib as _importlib
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from textgen.gradient.decoder import ForwardDecoder
    from textgen.gradient.loop import GradientTrainer
    from textgen.gradient.model import GradientModel
    from textgen.gradient.optimization import MakeOptimizer, Parameters, eager
    from textgen.gradient.options import GradientOptions
    from textgen.gradient.schedules import Schedule, constant, cosine, warmup_stable_decay

__all__ = [
    "ForwardDecoder",
    "GradientModel",
    "GradientOptions",
    "GradientTrainer",
    "MakeOptimizer",
    "Parameters",
    "Schedule",
    "constant",
    "cosine",
    "eager",
    "warmup_stable_decay",
]

_WHERE = {
    "decoder": ("ForwardDecoder",),
    "loop": ("GradientTrainer",),
    "model": ("GradientModel",),
    "optimization": ("MakeOptimizer", "Parameters", "eager"),
    "options": ("GradientOptions",),
    "schedules": ("Schedule", "constant", "cosine", "warmup_stable_decay"),
}


def __getattr__(name: str) -> _Any:
    for module, names in _WHERE.items():
        if name in names:
            value = globals()[name] = getattr(
                _importlib.import_module(f"textgen.gradient.{module}"), name
            )
            return value
    raise AttributeError(f"module 'textgen.gradient' has no attribute {name!r}")
