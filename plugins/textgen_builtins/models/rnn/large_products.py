"""Products of vectors and a large matrix in parts, each too small for BLAS to use threads.

BLAS divides a large product among threads and waits for all of them. If another program uses one of
the cores that is a hundred times slower, since the system takes milliseconds to give the core back.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

SHARED_FROM: Final = 400_000  # numbers in a matrix; OpenBLAS uses threads from 460,800 on
_LANES: Final = 64  # most columns that BLAS processes together


def multiply_in_parts(vectors: Any, matrix: Any, out: Any) -> None:
    """`vectors` (..., K) times the column-major `matrix` (K, N) into `out` (..., N), each part on
    one thread.
    """
    for part in _parts(*matrix.shape):
        np.matmul(vectors, matrix[:, part], out[..., part])


@cache
def _parts(inputs: int, outputs: int) -> tuple[slice, ...]:
    """The columns of each part of a matrix (K, N)."""
    width = (
        outputs
        if inputs * outputs < SHARED_FROM
        else max(_LANES, SHARED_FROM // inputs // _LANES * _LANES)
    )
    return tuple(slice(start, min(start + width, outputs)) for start in range(0, outputs, width))
