"""Products of vectors and a large matrix, with BLAS's own threads or without, whichever is
currently faster.

BLAS divides a large product among threads and waits for all of them. On idle cores that is faster.
If another program uses one of the cores it is a hundred times slower, since the system takes
milliseconds to give the core back. A product in parts, each below the size from which BLAS uses
threads, takes the time of one thread, whatever else the machine does.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Final

import attrs
import numpy as np

SHARED_FROM: Final = 400_000  # numbers in a matrix; OpenBLAS uses threads from 460,800 on
_LANES: Final = 64  # most columns that BLAS processes together
_FASTER: Final = 0.8  # share of one thread's time below which threads are used
_DEAR: Final = (
    8.0  # multiple of it above which sharing is rarely tried: waking a thread takes part of it
)
_FADING: Final = (
    1.01  # the shortest time grows by this factor with each product, so that it is renewed
)
_AT_ONCE: Final = 2  # products until sharing is tried again if it was not slow
_SOON: Final = 32  # until the first try, and the next if the first was slow
_LATE: Final = 16_384  # and at most, if it is always slow


@attrs.define(eq=False)
class LargeProducts:
    """Multiplies one vector, and times it. The decoders of a model may share one.

    Both ways must give the same numbers bit by bit, or timing would change the text. With
    column-major matrices they do; this is checked for each shape of matrix before threads are used.
    """

    _alone: float = float("inf")  # seconds per number of the matrix, on one thread
    _shares: bool = False
    _turn: int = 0
    _trial: int = _SOON
    _wait: int = _SOON
    _agree: dict[tuple[int, int], bool] = attrs.field(factory=dict)

    def dot(self, vector: Any, matrix: Any, out: Any) -> None:
        """`vector` (K,) times the column-major `matrix` (K, N) into `out` (N,)."""
        if matrix.size < SHARED_FROM:
            np.dot(vector, matrix, out)
            return
        self._turn += 1
        if self._shares or self._turn >= self._trial:
            self._share(vector, matrix, out)
            return
        begun = time.perf_counter()
        for part in _parts(*matrix.shape):
            np.dot(vector, matrix[:, part], out[part])
        self._alone = min((time.perf_counter() - begun) / matrix.size, self._alone * _FADING)

    def _share(self, vector: Any, matrix: Any, out: Any) -> None:
        """Multiply with BLAS's threads, and decide whether to continue with them."""
        if not self._agree.get(matrix.shape, False):
            np.dot(vector, matrix, out)
            whole = out.copy()
            multiply_in_parts(vector, matrix, out)
            self._agree[matrix.shape] = np.array_equal(whole, out, equal_nan=True)
            self._trial = self._turn + 1 if self._agree[matrix.shape] else self._turn + _LATE
            return
        begun = time.perf_counter()
        np.dot(vector, matrix, out)
        taken = (time.perf_counter() - begun) / matrix.size / self._alone
        self._shares = taken < _FASTER
        self._trial = self._turn + (_AT_ONCE if taken < _DEAR else self._wait)
        if taken >= _DEAR:
            self._wait = min(2 * self._wait, _LATE)
        elif self._shares:
            self._wait = _SOON


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
