"""Examples, which are the same every time, and calls from several threads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import numpy as np

__tracebackhide__ = True  # pytest shows the test and the code of the component

_Result = TypeVar("_Result")
_TURN: Final = 1e-6  # seconds until another thread goes on

ALPHABET: Final = "aeInotz 019.,;\n\t\r\0-_'\"<>/\\éßΣŁ–“”…ﬁ漢字é́‍👩🏽\u200b\ufeff\u2028한️"  # noqa: RUF001
"""Characters of many scripts, controls and combining characters among them."""


def generators(count: int) -> Iterator[np.random.Generator]:
    """So many sources of an example each."""
    return map(np.random.default_rng, range(count))


def bounds(rng: np.random.Generator, size: int) -> list[int]:
    """0, up to four places to cut something of this size, and the size."""
    return [0, *sorted(rng.integers(0, size + 1, rng.integers(5)).tolist()), size]


def in_threads(call: Callable[[int], _Result], count: int = 6) -> list[_Result]:
    """`call(i)` from so many threads, which take turns as often as they can.

    Raises what one of them raises.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(call, range(count)))
    finally:
        sys.setswitchinterval(interval)
