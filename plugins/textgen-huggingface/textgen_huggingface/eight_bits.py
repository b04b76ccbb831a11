"""Linear layers in 8 bits, for a model that writes and is not trained."""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Self

import attrs
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_MIN_WEIGHTS: Final = 1 << 24  # weights of a model's linear layers; fewer are read in no time
_MULTIPLE: Final = 32  # of inputs and outputs, as torch's kernels take them
_FEW_ROWS: Final = 48  # rows; for more, the weights are converted for a product of matrices


@attrs.frozen(eq=False)
class EightBits:
    """A linear layer whose weights are integers times a number per output.

    What it reads stays in floating point, so that the rows of a batch do not depend on each other.

    weight  (N, K) int8
    scale   (N,) bfloat16
    bias    (N,) float32, if there is one
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, layer: Any) -> Self:
        """The layer with the integers that are nearest to its weights (N, K)."""
        weight = _weight(layer)
        scale = (weight.abs().amax(1) / 127).clamp_(min=torch.finfo(torch.float32).tiny)
        scale = scale.bfloat16()
        integers = (weight / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8).contiguous()
        return cls(integers, scale, layer.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N), float32."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) <= _FEW_ROWS:
            made = torch._weight_int8pack_mm(rows.bfloat16(), self.weight, self.scale).float()
        else:
            dtype = _product_dtype()
            made = (rows.to(dtype) @ self.weight.to(dtype).t()).float().mul_(self.scale)
        if self.bias is not None:
            made += self.bias
        return made.view(*x.shape[:-1], -1)


def write_in_eight_bits(model: nn.Module) -> None:
    """Make the linear layers of a large model compute in 8 bits, on a CPU.

    The layers keep their weights, and with them what is saved.
    """
    layers: list[Any] = [m for m in model.modules() if type(m) in (nn.Linear, Conv1D)]
    if sum(layer.weight.numel() for layer in layers) < _MIN_WEIGHTS:
        return
    for layer in layers:
        is_even = not any(size % _MULTIPLE for size in layer.weight.shape)
        if is_even and layer.weight.device.type == "cpu":
            layer.forward = EightBits.of(layer)


def write_plainly(model: nn.Module) -> None:
    """Undo `write_in_eight_bits`, before weights change."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), EightBits):
            del module.forward


def _weight(layer: Any) -> Tensor:
    weight: Tensor = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
    return weight.float()


@cache
def _product_dtype() -> torch.dtype:
    """bfloat16 where the CPU has instructions for it, else float32."""
    has = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "bf16")
    return torch.bfloat16 if any(has.get(name) for name in names) else torch.float32
