"""Examples from hypothesis, the same ones every time, and calls from several threads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as strategy
from hypothesis.strategies import SearchStrategy

__tracebackhide__ = True  # pytest shows the test and the code of the component

_Result = TypeVar("_Result")
_TURN: Final = 1e-6  # seconds until another thread goes on

# Sampled from, since a range of characters would make hypothesis keep a table of Unicode in the
# current folder
ALPHABET: Final = "aeInotz 019.,;\n\t\r\0-_'\"<>/\\éßΣŁ–“”…ﬁ漢字é́‍👩🏽\u200b\ufeff\u2028한️"  # noqa: RUF001


def for_all(
    examples: int, function: Callable[..., None], **strategies: SearchStrategy[Any]
) -> None:
    """Call `function` with so many examples; its first failure is shrunk and raised."""
    made = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(given(**strategies)(function))
    made()


def texts() -> SearchStrategy[str]:
    """Text of many scripts, controls and combining characters among them; no lone surrogates."""
    return strategy.text(strategy.sampled_from(ALPHABET), max_size=40)


def cuts(size: int) -> SearchStrategy[list[int]]:
    """Where to cut something of this size, rising, up to four places."""
    return strategy.lists(strategy.integers(0, size), max_size=4).map(sorted)


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
