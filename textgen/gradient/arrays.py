"""Tensors as the arrays that are saved of them, and back."""

from __future__ import annotations

from typing import Any, Final

import numpy.typing as npt
import torch
from torch import Tensor

_HALF: Final = (torch.bfloat16, torch.float16)


def to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """An array of a tensor's numbers; of those with 16 bits, in float32, since NumPy has no
    bfloat16.
    """
    half = tensor.dtype in _HALF
    made: npt.NDArray[Any] = (tensor.detach().float() if half else tensor.detach()).cpu().numpy()
    return made


def like_weights(tensor: Tensor, model: Any) -> Tensor:
    """A state that was saved, in the precision of a model whose weights have 16 bits; others
    compute as they please.
    """
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    half = dtype in _HALF and tensor.is_floating_point()
    return tensor.to(dtype) if half else tensor
