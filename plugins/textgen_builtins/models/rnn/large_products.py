"""Products of vectors and a large matrix, with BLAS's own threads or without, whichever is faster at this time.

BLAS shares a large product among threads and waits for all of them. On idle cores that is faster. Where
another program has one of the cores it is a hundred times slower, since the system takes milliseconds to give the core
back. A product in parts, each below the size from which BLAS shares, takes what one thread needs, whatever else the
machine does.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Final

import attrs
import numpy as np

SHARED_FROM: Final = 400_000  # numbers in a matrix; OpenBLAS shares vector products from 460,800 on
_LANES: Final = 64  # columns that BLAS takes together, at most
_FASTER: Final = 0.8  # of the time of one thread, from which sharing is worth it
_DEAR: Final = 8.0  # of it, from which sharing is not to be tried often: a thread that slept takes some of it to wake
_FADING: Final = 1.01  # a time counts for less with each later product
_AT_ONCE: Final = 2  # products until sharing is tried again where it was not dear
_SOON: Final = 32  # until it is tried for the first time, and again where it was dear for the first time
_LATE: Final = 16_384  # and in the end, where it always is


@attrs.define(eq=False)
class LargeProducts:
    """Multiplies one vector, and times it. The decoders of a model may share one.

    Both ways have to give the same numbers bit by bit, or the time would decide on the text. With column-major matrices
    they do; it is seen to for each shape of matrix before it is shared.
    """

    _alone: float = float("inf")  # seconds for a number of the matrix, on one thread
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
        """Multiply in one, and see whether to go on like that."""
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
    """`vectors` (..., K) times the column-major `matrix` (K, N) into `out` (..., N), each part on one thread."""
    for part in _parts(*matrix.shape):
        np.matmul(vectors, matrix[:, part], out[..., part])


@cache
def _parts(inputs: int, outputs: int) -> tuple[slice, ...]:
    """The columns of each part of a matrix (K, N)."""
    width = outputs if inputs * outputs < SHARED_FROM else max(_LANES, SHARED_FROM // inputs // _LANES * _LANES)
    return tuple(slice(start, min(start + width, outputs)) for start in range(0, outputs, width))
