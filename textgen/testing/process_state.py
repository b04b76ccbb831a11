"""What belongs to the whole process, and what a component may leave behind in it. Loads no NumPy."""

from __future__ import annotations

import contextlib
import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_GRACE: Final = (
    1.0  # seconds that threads, processes and files have to end when nobody uses them any more
)


def global_state() -> dict[str, Any]:
    """The states that all code of the process shares, by what they are called."""
    root = logging.getLogger()
    state: dict[str, Any] = {
        "the random state of `random`": hash(random.getstate()),
        "the environment": dict(os.environ),
        "the current folder": os.getcwd(),
        "the warning filters": list(warnings.filters),
        "logging": (root.level, list(root.handlers), list(root.filters), root.manager.disable),
        "the signal handlers": {
            number: signal.getsignal(number) for number in signal.valid_signals()
        },
        "the recursion limit": sys.getrecursionlimit(),
        "sys.excepthook": sys.excepthook,
        "the locale": locale.setlocale(locale.LC_ALL),
        "the default timeout of sockets": socket.getdefaulttimeout(),
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
    }
    numpy, torch = _loaded("numpy"), _loaded("torch")
    if numpy is not None:
        kind, keys, *rest = numpy.random.get_state()
        state["the random state of NumPy"] = (kind, keys.tobytes(), rest)
        state["the floating-point errors of NumPy"] = numpy.geterr()
    if torch is not None:
        state["the random state of torch"] = torch.random.get_rng_state().numpy().tobytes()
        state["the number of torch's threads"] = torch.get_num_threads()
        state["torch's default dtype"] = torch.get_default_dtype()
        state["torch's gradients"] = torch.is_grad_enabled()
        state["torch's deterministic algorithms"] = torch.are_deterministic_algorithms_enabled()
    return state


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What of `before` is another in `after`; what was not loaded before cannot be compared."""
    return [
        f"the environment ({_first_difference(value, after[name])})"
        if name == "the environment"
        else name
        for name, value in before.items()
        if after[name] != value
    ]


def _first_difference(before: dict[str, str], after: dict[str, str]) -> str:
    return next(key for key in (*after, *before) if before.get(key) != after.get(key))


def broad_filters(before: list[Any], after: list[Any]) -> list[Any]:
    """The new warning filters that reach beyond a library's own categories and modules."""
    return [
        each
        for each in after
        if each not in before
        and each[1] is None
        and each[3] is None
        and each[2].__module__ == "builtins"
    ]


def put_back(state: dict[str, Any]) -> dict[str, Any]:
    """Make the states what they were, but for the random ones, and return them: what sets one anew is seen then.

    The number of torch's threads, which is not known where torch was not loaded before, becomes another instead.
    """
    os.environ.clear()
    os.environ.update(state["the environment"])
    os.chdir(state["the current folder"])
    warnings.filters[:] = state["the warning filters"]  # type: ignore[index]
    root = logging.getLogger()
    root.setLevel(state["logging"][0])
    root.handlers[:], root.filters[:] = state["logging"][1], state["logging"][2]
    logging.disable(state["logging"][3])
    for number, handler in state["the signal handlers"].items():
        if signal.getsignal(number) != handler and handler is not None:
            signal.signal(number, handler)
    sys.setrecursionlimit(state["the recursion limit"])
    sys.excepthook = state["sys.excepthook"]
    locale.setlocale(locale.LC_ALL, state["the locale"])
    socket.setdefaulttimeout(state["the default timeout of sockets"])
    gc.enable() if state["garbage collection"][0] else gc.disable()
    gc.set_threshold(*state["garbage collection"][1])
    kept = {name: value for name, value in state.items() if not name.startswith("the random state")}
    numpy, torch = _loaded("numpy"), _loaded("torch")
    if numpy is not None:
        numpy.seterr(**state.get("the floating-point errors of NumPy", numpy.geterr()))
    if torch is not None:
        torch.set_num_threads(torch.get_num_threads() - 1 or 2)
        kept["the number of torch's threads"] = torch.get_num_threads()
    return kept


@contextlib.contextmanager
def stirred() -> Iterator[None]:
    """Random states that no seeding leaves behind, put back at the end."""
    kept = random.getstate()
    random.random()  # noqa: S311  # it is only to change the state
    numpy, torch = _loaded("numpy"), _loaded("torch")
    numpy_kept = numpy and numpy.random.get_state()
    torch_kept = torch and torch.random.get_rng_state()
    if numpy is not None:
        numpy.random.random()
    if torch is not None:
        torch.rand(1)
    try:
        yield
    finally:
        random.setstate(kept)
        if numpy is not None:
            numpy.random.set_state(numpy_kept)
        if torch is not None:
            torch.random.set_rng_state(torch_kept)


def _loaded(name: str) -> Any:
    """A module, if it is imported as a whole."""
    module = sys.modules.get(name)
    return module if hasattr(module, "random") else None


def held() -> dict[str, str]:
    """The threads, processes and open files of this process, by what identifies each: a phrase for each of them."""
    found = {
        f"thread {thread.ident}": f"the thread {thread.name!r}" for thread in threading.enumerate()
    }
    for number in _listed("/proc/self/fd") or _listed("/dev/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{number}")
            found[f"file {number} {target}"] = f"the open file {target}"
    for task in _listed("/proc/self/task"):
        with contextlib.suppress(OSError):
            for child in (
                Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii").split()
            ):
                found[f"process {child}"] = f"the process {child}"
    return found


def left_behind(before: dict[str, str]) -> list[str]:
    """What is held, and was not `before`, once nobody uses it any more."""
    gc.collect()
    deadline = time.monotonic() + _GRACE
    while (
        more := [phrase for key, phrase in held().items() if key not in before]
    ) and time.monotonic() < deadline:
        time.sleep(0.01)
    return more


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # no such thing on this system
        return []
