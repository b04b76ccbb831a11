"""An end for checks that may have none."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

__tracebackhide__ = True  # pytest shows the test and the code of the component

TIME_LIMIT: Final = 60.0
"""Seconds that a check may take unless told otherwise."""


class TimeUpError(BaseException):
    """Raised in a call that takes too long.

    It is not an Exception, which the component may catch.
    """


def within(seconds: float, call: Callable[[], object]) -> None:
    """Call something, and raise TimeUpError in it after so many seconds.

    SIGALRM interrupts the main thread. In other threads, on Windows, and in code that does not
    return to Python, nothing is interrupted.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        call()
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)  # another's, such as that of pytest-timeout
        signal.signal(signal.SIGALRM, before)
