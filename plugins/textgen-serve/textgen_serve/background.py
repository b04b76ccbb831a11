"""Work that goes on between requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs


@attrs.define(eq=False)
class Background:
    """Endless tasks of a server, in the event loop that runs when they are started."""

    _work: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    _tasks: list[asyncio.Task[None]] = attrs.field(factory=list, init=False)

    def start(self) -> None:
        """Start them, unless they run."""
        if all(task.done() for task in self._tasks):
            self._tasks = [asyncio.create_task(function()) for function in self._work]

    def stop(self) -> None:
        """End them."""
        for task in self._tasks:
            task.cancel()
