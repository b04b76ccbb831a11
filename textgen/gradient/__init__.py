"""What trainers and models by gradient are made of. torch is imported when they are used, not before.

GradientTrainer   a trainer: an optimizer, perhaps a schedule, and everything else from this loop
GradientOptions   the options that all of them share; a trainer's config is a subclass
Parameters        what the optimizer is made for, by role; MakeOptimizer is the function that makes it
eager             a class of torch's optimizers without torch's compiler, which is slow to import
constant, cosine, warmup_stable_decay   schedules of the learning rate; Schedule is the type of one
GradientModel     the decoding half of a model, for a torch.nn.Module
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
