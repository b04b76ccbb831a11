"""Streams for asyncio.

One background thread runs the requests of all of them, and their event loops stay free.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Self

from textgen.errors import UsageError
from textgen.generation.row import Row
from textgen.generation.scheduler import Scheduler
from textgen.generation.streams import StreamedText

_AT_ONCE: Final = 12  # readers woken in a round: each takes some 20 microseconds of its event loop
# Seconds of sleep a round. Short calls of NumPy release the interpreter's lock and take it again
# before a waiting thread wakes, so that an event loop may wait for tens of milliseconds.
_YIELD: Final = 0.0001
_PAUSE: Final = 0.001  # seconds that an idle generator waits for more requests, while they come
_BURST: Final = 20  # times at most


class Reader:
    """Waits in an event loop for what comes of a row."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()

    async def wait(self, waiting: deque[Reader]) -> None:
        """Wait until there is something to take, or until it is woken for another reason."""
        self._woken.clear()
        if not self.row.has_news:
            waiting.append(self)
            if not self.row.has_news:  # what came since then may have woken nobody
                await self._woken.wait()

    def wake(self) -> None:
        """Wake it, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            self.row.cancel()


class BackgroundLoop:
    """Runs the rows of a generator's asynchronous streams in one thread, which ends when there is
    nothing to do.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.waiting: deque[Reader] = deque()  # the longest first
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn, in order of arrival."""
        with self._lock:
            self._scheduler.submit(row)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="textgen-generation", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        self._gather()
        while True:
            try:
                self._scheduler.run()
                self._scheduler.flush()
            except Exception as error:  # a fault of the scheduler itself: nobody may wait for ever
                self._scheduler.abort(error)
            self._wake(_AT_ONCE)
            time.sleep(_YIELD)
            with self._lock:
                if self._scheduler.is_idle:
                    self._wake(len(self.waiting))
                    self._thread = None
                    return

    def _gather(self) -> None:
        """Let requests that come in a burst begin together: a row that joins a batch costs a copy
        of it.
        """
        before = 0
        for _ in range(_BURST):
            if self._scheduler.waiting == before:
                return
            before = self._scheduler.waiting
            time.sleep(_PAUSE)

    def _wake(self, count: int) -> None:
        """Wake up to `count` of the readers that have something to take, and all that wait for
        their first piece.
        """
        for _ in range(len(self.waiting)):
            reader = self.waiting.popleft()
            if reader.row.has_news and (count > 0 or not reader.row.taken):
                count -= 1
                reader.wake()
            else:
                self.waiting.append(reader)


class AsyncTextStream(StreamedText, AsyncIterator[str]):
    """`TextStream` for asyncio, with the same attributes. An asynchronous context manager.

    The text ends with `aclose`, when a task that waits for a piece is cancelled, and when the
    stream is dropped.
    """

    def __init__(self, background: BackgroundLoop, row: Row, model_id: str) -> None:
        super().__init__(background.submit, row, model_id)
        self._waiting, self._reader = background.waiting, Reader(row)
        self._is_read = False
        weakref.finalize(self, row.cancel).atexit = False

    async def __anext__(self) -> str:
        if self._is_read:
            raise UsageError("another task waits for the next piece of this stream already")
        self._is_read = True
        try:
            while (piece := self._next()) is None:
                await self._reader.wait(self._waiting)
        except BaseException as error:  # it failed, or nobody waits for the text any more
            self._leave(error)
            raise
        finally:
            self._is_read = False
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """End the text. No piece follows."""
        self._leave()
        self._reader.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def finished(background: BackgroundLoop, row: Row) -> None:
    """Make a whole text. It ends where the task is cancelled."""
    row.whole = True
    row.start_clock()
    background.submit(row)
    reader = Reader(row)
    try:
        while not row.ended:
            await reader.wait(background.waiting)
    finally:
        row.cancel()
