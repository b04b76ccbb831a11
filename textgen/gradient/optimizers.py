"""Optimizers of torch without its compiler."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TypeVar

import torch

_Optimizer = TypeVar("_Optimizer", bound=torch.optim.Optimizer)


@cache
def eager(kind: type[_Optimizer]) -> type[_Optimizer]:
    """The same optimizer, which cannot be compiled: `eager(torch.optim.AdamW)(parameters, lr=0.01)`.

    The first use of any optimizer imports torch's compiler, to tell it to keep out, which takes a second or two and
    some 80 MB of memory. What is around these methods is left out here, but that a step has no gradients of its own.
    """
    around = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in around}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**plain, "step": step, "__module__": kind.__module__})
