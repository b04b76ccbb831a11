"""Effects of a component on its process: its time, the states that all code shares, threads, files
and connections.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import signal
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Final
from unittest import mock

import attrs

from textgen.contracts.checks import FAILURES
from textgen.testing.outcomes import Violation

__tracebackhide__ = True  # pytest shows the test and the code of the component

TIME_LIMIT: Final = 60.0
"""Seconds that a check may take unless told otherwise."""
KEPT_BYTES: Final = 3.0
"""Bytes that may be left of a call. An item of a list takes 8, of which there is room for some
before.
"""
_PATIENCE: Final = 1.0  # seconds that a thread gets to end
_SWITCH_SECONDS: Final = 1e-6  # seconds until another thread goes on
_PAUSES: Final = 1000  # times that a thread lets others go on between lines
_PAUSED_SHARE: Final = 0.3  # of the lines before which it does
_PAUSE: Final = 1e-6  # seconds, of which the system makes more
_NOT_COMPONENTS: Final = frozenset({"textgen", "numpy", "torch", *sys.stdlib_module_names})
_MEMORY_PARTS: Final = 4  # parts of the calls of which each has to grow
_MORE_CALLS: Final = 4  # times as many are made of what has grown
_MEMORY_SECONDS: Final = 1.0  # of a processor, that a part may take
_FEWEST_CALLS: Final = 10  # of a part, however long they take
_NOISE_BYTES: Final = 16_000  # by which memory may grow in a part that was cut short
_State = tuple[str, Callable[[], Any], Callable[[Any], object]]


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


@contextlib.contextmanager
def unchanged(*, everything: bool = False) -> Iterator[None]:
    """Raise Violation if the block changes a state; every state is put back after it.

    Every random state is a fresh one within the block, so that the same seed set twice is a change
    each time. `everything` includes what an import may change by right.
    """
    import numpy as np
    import torch  # if the component were first to load it, nothing would be known of it before

    states: list[_State] = [
        ("the random state of `random`", random.getstate, random.setstate),
        ("the random state of NumPy", np.random.get_state, np.random.set_state),
        ("the random state of torch", torch.random.get_rng_state, torch.random.set_rng_state),
        ("the number of torch's threads", torch.get_num_threads, torch.set_num_threads),
        ("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        ("the current folder", os.getcwd, os.chdir),
    ]
    if everything:
        states += [
            ("the environment", lambda: dict(os.environ), _set_environment),
            ("the filters of warnings", lambda: [*warnings.filters], lambda _: None),
            ("the handlers of signals", _handlers, _set_handlers),
        ]
    kept = [read() for _, read, _ in states]
    for renew in (random.seed, np.random.seed, torch.default_generator.seed):
        renew()
    before = [_comparable(read()) for _, read, _ in states]
    try:
        with warnings.catch_warnings():  # which puts the filters back
            yield
            after = [_comparable(read()) for _, read, _ in states]
    finally:
        for (_, _, write), value in zip(states, kept, strict=True):
            write(value)
    pairs = zip(states, before, after, strict=True)
    if changed := [name for (name, *_), old, new in pairs if old != new]:
        raise Violation(f"it changed {', '.join(changed)}", "component-globals")


@contextlib.contextmanager
def no_thread_left() -> Iterator[None]:
    """Raise Violation if the block leaves a thread that the process would wait for at its end."""
    before = threading.enumerate()
    yield
    for thread in threading.enumerate():
        if thread not in before and not thread.daemon:
            thread.join(_PATIENCE)
            if thread.is_alive():
                raise Violation(f"it left the thread {thread.name!r} running", "component-globals")


def in_threads(call: Callable[..., object], *arguments: Sequence[Any]) -> None:
    """Call something in a thread for each of the arguments, as `map` does. All threads begin at
    once, and take turns as often as they can, between the lines of the component's code too.

    Raises Violation where a call raises what it does not raise alone.
    """
    count, interval = len(arguments[0]), sys.getswitchinterval()
    barrier, installing = threading.Barrier(count), threading.Lock()

    def begin(*given: Any) -> None:
        with installing:  # which CPython refuses to two threads at once
            if sys.gettrace() is None:  # else a debugger or a measurement of coverage needs it
                sys.settrace(_LinesApart())
        barrier.wait()
        try:
            call(*given)
        except FAILURES as error:
            if isinstance(error, Violation):
                raise
            what = f"{type(error).__name__}: {error}"
            raise Violation(f"with other threads at work, it raised {what}") from error
        finally:
            with installing:
                if isinstance(sys.gettrace(), _LinesApart):
                    sys.settrace(None)

    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(begin, *arguments))
    finally:
        sys.setswitchinterval(interval)


@attrs.define
class _LinesApart:
    """A trace function that lets other threads go on before some lines of a component's code.

    Python alone lets them go on where a function is called or a loop begins again, and hardly ever
    between two lines.
    """

    left: int = _PAUSES
    rng: random.Random = attrs.field(factory=random.Random)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> _LinesApart | None:
        module = str(frame.f_globals.get("__name__", ""))
        if not self.left or module.partition(".")[0] in _NOT_COMPONENTS:
            return None
        if event == "line" and self.rng.random() < _PAUSED_SHARE:
            self.left -= 1
            time.sleep(_PAUSE)
        return self


def check_memory(call: Callable[[int], object], calls: int, allowed: float) -> None:
    """Raise Violation if memory grows with each call by more than so many bytes, and goes on
    growing.

    `call` is given a number that no other call has. Where memory has grown in all parts of `calls`
    calls, there are more of them, since a cache may still reach its bound. Seen is the memory of
    Python and NumPy, and not what compiled code keeps to itself.
    """
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    gc.collect()
    gc.freeze()  # then only what the calls leave has to be looked through
    try:
        made = _calls_made(call, 0, calls // _MEMORY_PARTS)  # whatever is kept once
        sizes = [calls // _MEMORY_PARTS] * (_MEMORY_PARTS - 1)
        sizes += [calls * _MORE_CALLS] * 2
        for size in sizes:
            before, begun = _traced_memory(), made
            made = _calls_made(call, made, size)
            grown = _traced_memory() - before
            per_call = grown / (made - begun)
            # Few calls, for which there was no time for more, say little.
            is_noise = made - begun < size and grown <= _NOISE_BYTES
            if per_call <= allowed or is_noise:
                return
    finally:
        gc.unfreeze()
        if not was_tracing:
            tracemalloc.stop()
    raise Violation(f"after {made:,} calls, each still makes memory grow by {per_call:,.0f} bytes")


def _calls_made(call: Callable[[int], object], made: int, size: int) -> int:
    """Make so many calls, or as many as there is time for, and return how many were made in all."""
    deadline = time.thread_time() + _MEMORY_SECONDS
    for number in range(made, made + size):
        call(number)
        if number >= made + _FEWEST_CALLS and time.thread_time() > deadline:
            return number + 1
    return made + size


def _traced_memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@attrs.frozen
class Deeds:
    """Files that were read and written, and with what was connected."""

    read: list[Path] = attrs.field(factory=list)
    written: list[Path] = attrs.field(factory=list)
    connected: list[str] = attrs.field(factory=list)

    def see(self, event: str, given: tuple[Any, ...]) -> None:
        """An event of sys.addaudithook."""
        if event in ("socket.connect", "socket.getaddrinfo"):
            self.connected.append(str(given[1] if event == "socket.connect" else given[0]))
        elif event == "open" and not isinstance(given[0], int):
            path = Path(os.fsdecode(given[0])).resolve()
            if not path.is_relative_to("/proc") and path.parent != Path("/dev"):
                is_written = (given[2] or 0) & (os.O_WRONLY | os.O_RDWR)
                (self.written if is_written else self.read).append(path)


_watching: Final[list[Deeds]] = []


@contextlib.contextmanager
def watched() -> Iterator[Deeds]:
    """Record of what the process does within the block."""
    _watch()
    _watching.append(deeds := Deeds())
    try:
        yield deeds
    finally:
        _watching.remove(deeds)


@functools.cache  # a hook stays for as long as the process
def _watch() -> None:
    def see(event: str, given: tuple[Any, ...]) -> None:
        for deeds in _watching:
            deeds.see(event, given)

    sys.addaudithook(see)


@contextlib.contextmanager
def seeds() -> Iterator[list[Any]]:
    """The seeds that generators of NumPy and torch are given within the block, at its end."""
    import numpy as np
    import torch

    with contextlib.ExitStack() as patches:
        given: list[Any] = []
        makers = [
            patches.enter_context(mock.patch.object(owner, name, wraps=getattr(owner, name)))
            for owner, name in ((np.random, "default_rng"), (torch, "manual_seed"))
        ]
        yield given
        given += [str(call) for maker in makers for call in maker.call_args_list]


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _handlers() -> list[Any]:
    return [*map(signal.getsignal, signal.valid_signals())]


def _set_handlers(handlers: list[Any]) -> None:
    for number, handler in zip(signal.valid_signals(), handlers, strict=True):
        if handler is not signal.getsignal(number):
            signal.signal(number, handler)


def _comparable(state: Any) -> Any:
    """A state in which arrays and tensors are bytes."""
    import numpy as np

    if isinstance(state, tuple):
        return tuple(map(_comparable, state))
    return np.asarray(state).tobytes() if hasattr(state, "__array__") else state
