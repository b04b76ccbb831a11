"""What code does beside what it returns: the files that it opens, its connections, the seeds of its
generators, and what it makes of the time of day.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import attrs

__tracebackhide__ = True  # pytest shows the test and the code of the component

_CONNECTING: Final = ("socket.connect", "socket.getaddrinfo")
_LATER: Final = 23  # hours
_LONG: Final = 40_000  # seconds


@attrs.frozen
class Deeds:
    """What was seen.

    read, written   the files
    connected       with what
    """

    read: list[Path] = attrs.field(factory=list)
    written: list[Path] = attrs.field(factory=list)
    connected: list[str] = attrs.field(factory=list)

    def see(self, event: str, given: tuple[Any, ...]) -> None:
        """An event of sys.addaudithook."""
        if event in _CONNECTING:
            self.connected.append(str(given[1] if event == _CONNECTING[0] else given[0]))
        elif event == "open" and isinstance(given[0], str | bytes | os.PathLike):
            path = Path(os.fsdecode(given[0])).resolve()
            if not path.is_relative_to("/proc") and path.parent != Path("/dev"):
                flags = given[2] if isinstance(given[2], int) else 0
                is_written = flags & (os.O_WRONLY | os.O_RDWR)
                (self.written if is_written else self.read).append(path)


_watching: list[Deeds] = []


def _hook(event: str, given: tuple[Any, ...]) -> None:
    for deeds in _watching:
        deeds.see(event, given)


_install: Final = [lambda: sys.addaudithook(_hook)]  # once in a process, for it stays


@contextlib.contextmanager
def watched() -> Iterator[Deeds]:
    """What the process does within the block."""
    while _install:
        _install.pop()()
    deeds = Deeds()
    _watching.append(deeds)
    try:
        yield deeds
    finally:
        _watching.remove(deeds)


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Another hour and another day, by local time and by time.time()."""
    zone, now = os.environ.get("TZ"), time.time

    def in_hours() -> float:
        return now() + _LONG

    away = _LATER if time.localtime().tm_gmtoff < 0 else -_LATER
    hours = round(time.localtime().tm_gmtoff / 3600) + away
    try:
        os.environ["TZ"] = f"LATER{-hours:+d}"
        _read_zone()
        with mock.patch("time.time", in_hours):
            yield
    finally:
        os.environ.pop("TZ")
        os.environ |= {} if zone is None else {"TZ": zone}
        _read_zone()


@contextlib.contextmanager
def seeds() -> Iterator[list[str]]:
    """The seeds that generators are given within the block."""
    import numpy as np
    import torch

    given: list[str] = []

    def noting(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*seed: Any, **named: Any) -> Any:
            given.append(repr((seed, named)))
            return make(*seed, **named)

        return made

    class Generator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            given.append(repr(seed))
            return super().manual_seed(seed)

    class Random(random.Random):
        def __init__(self, *seed: Any) -> None:
            given.append(repr(seed))
            super().__init__(*seed)

    with contextlib.ExitStack() as patches:
        for owner, name in ((np.random, "default_rng"), (torch, "manual_seed")):
            patches.enter_context(mock.patch.object(owner, name, noting(getattr(owner, name))))
        patches.enter_context(mock.patch.object(torch, "Generator", Generator))
        patches.enter_context(mock.patch.object(random, "Random", Random))
        yield given


def _read_zone() -> None:
    if hasattr(time, "tzset"):  # not on Windows
        time.tzset()
