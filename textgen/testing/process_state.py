"""The states that all code of a process shares."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

from textgen.testing.outcomes import Violation

__tracebackhide__ = True  # pytest shows the test and the code of the component

_PATIENCE: Final = 1.0  # seconds that a thread gets to end
_State = tuple[str, Callable[[], Any], Callable[[Any], object]]


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
            ("the environment", lambda: tuple(sorted(os.environ.items())), _set_environment),
            ("the filters of warnings", lambda: tuple(warnings.filters), lambda _: None),
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
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(_PATIENCE)
            if thread.is_alive():
                seen = f"it left the thread {thread.name!r} running"
                raise Violation(seen, "component-globals")


def _set_environment(items: tuple[tuple[str, str], ...]) -> None:
    os.environ.clear()
    os.environ.update(items)


def _handlers() -> tuple[Any, ...]:
    return tuple((each, signal.getsignal(each)) for each in sorted(signal.valid_signals()))


def _set_handlers(handlers: tuple[tuple[signal.Signals, Any], ...]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers:
            if handler is not signal.getsignal(number):
                signal.signal(number, handler)


def _comparable(state: Any) -> Any:
    """A state in which arrays and tensors are bytes."""
    import numpy as np

    if isinstance(state, tuple):
        return tuple(map(_comparable, state))
    return np.asarray(state).tobytes() if hasattr(state, "__array__") else state
