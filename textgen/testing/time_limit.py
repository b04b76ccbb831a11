"""An end for calls that may have none."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType, TracebackType
from typing import Final, TypeVar

from textgen.contracts.checks import FAILURES

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

TIME_LIMIT: Final = 60.0
"""Seconds that a check may take, and an import, unless told otherwise."""
_SOON: Final = 0.005  # seconds until it is tried again where the exception would be lost
_AGAIN: Final = (
    1.0  # seconds until a call that has swallowed the exception is interrupted once more
)

_Result = TypeVar("_Result")


class TimeUpError(BaseException):
    """Raised where a call is that took too long. No Exception, which a component may catch.

    computed   seconds of CPU time that this process took meanwhile
    """

    computed = 0.0


def not_ended(seconds: float, computed: float) -> str:
    """What is seen of a call that was ended: on a busy machine it may have had little of the CPU."""
    return f"had not ended after {seconds:g} s, in which it had {computed:.1f} s of CPU time"


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """What `call` returns. Raises TimeUpError after so many seconds, with a traceback to where it was.

    In the main thread it is interrupted by SIGALRM. Elsewhere, and where there are no such signals, it runs in a thread
    of its own that is left behind. Code that never returns to Python is interrupted by neither; a process of its own is
    what helps there.
    """
    begun = time.process_time()
    try:
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
            return _interrupted(seconds, call)
        return _left_behind(seconds, call)
    except TimeUpError as error:
        error.computed = time.process_time() - begun
        raise


def _interrupted(seconds: float, call: Callable[[], _Result]) -> _Result:
    def stop(number: int, frame: FrameType | None) -> None:
        if _would_lose_it(frame):
            signal.setitimer(signal.ITIMER_REAL, _SOON, _AGAIN)
        else:
            raise TimeUpError

    begun, before = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        try:
            return call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if left:  # somebody else's, such as that of pytest-timeout
            signal.setitimer(
                signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - begun)), interval
            )


def _would_lose_it(frame: FrameType | None) -> bool:
    """Whether an exception would go nowhere: in a destructor, or in hypothesis, which garbage collection calls."""
    if frame is None:
        return False
    return frame.f_code.co_name == "__del__" or str(frame.f_globals.get("__name__", "")).startswith(
        "hypothesis."
    )


def _left_behind(seconds: float, call: Callable[[], _Result]) -> _Result:
    made: Future[_Result] = Future()

    def work() -> None:
        try:
            made.set_result(call())
        except FAILURES as error:
            made.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeUpError().with_traceback(_traceback(sys._current_frames().get(thread.ident or 0)))
    return made.result()


def _traceback(frame: FrameType | None) -> TracebackType | None:
    """A traceback to a frame, as an exception in it would have."""
    made = None
    while frame is not None:
        made, frame = TracebackType(made, frame, frame.f_lasti, frame.f_lineno), frame.f_back
    return made
