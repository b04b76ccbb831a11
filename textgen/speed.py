"""How fast this machine multiplies matrices."""

from __future__ import annotations

import timeit
from typing import TYPE_CHECKING, Final, Literal

from textgen.threads import free_threads

if TYPE_CHECKING:
    import torch

_SIDE: Final = 256  # of a matrix that is multiplied to see how fast that is


def faster_precision(device: str) -> Literal["float32", "bfloat16"]:
    """bfloat16 where a GPU has it built in, or a CPU multiplies matrices much faster in it, as
    those with instructions for it do; else float32.
    """
    import torch

    if device.startswith("cuda"):
        with torch.cuda.device(device):
            is_faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        seconds = _product_seconds(torch.bfloat16), _product_seconds(torch.float32)
        is_faster = device == "cpu" and seconds[0] < seconds[1] / 2
    return "bfloat16" if is_faster else "float32"


def operations_per_second() -> float:
    """Multiplications and additions of a product of matrices, by torch's threads on the CPU if each
    has a processor, in the dtype that is faster.
    """
    import torch

    with free_threads(weights=1):
        fastest = min(_product_seconds(dtype) for dtype in (torch.bfloat16, torch.float32))
    return torch.get_num_threads() * 2 * _SIDE**3 / fastest


def _product_seconds(dtype: torch.dtype) -> float:
    """Seconds of a product of two matrices on the CPU, the least of several."""
    import torch

    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    return min(timeit.repeat(lambda: matrix @ matrix, number=1, repeat=100))
