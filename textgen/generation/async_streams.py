"""Streams for asyncio. One background thread runs the requests of all of them, and their event loops stay free."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, Self

from textgen.errors import UsageError
from textgen.generation.row import Row
from textgen.generation.scheduler import Scheduler
from textgen.generation.streams import StreamedText

_ROUND: Final = 0.005  # seconds of work after which readers are woken
_AT_ONCE: Final = 12  # readers woken in a round: each takes some 20 microseconds of its event loop
_PAUSE: Final = (
    0.001  # seconds that an idle generator waits for more requests, for as long as more come
)
_BURST: Final = 20  # times at most
# Seconds of sleep a round. Short calls of NumPy release the interpreter's lock and take it again before a waiting
# thread wakes, so that an event loop may wait for tens of milliseconds.
_YIELD: Final = 0.0001
_UNREAD: Final = 1 << 14  # tokens that a reader may be behind before its text pauses


class Reader:
    """Waits in an event loop for what comes of a row."""

    def __init__(self, row: Row) -> None:
        self.loop = asyncio.get_running_loop()
        self.row = row
        self.has_begun = False
        self._woken: asyncio.Future[None] | None = None

    async def wait(self, waiting: deque[Reader]) -> None:
        """Until there is something to take, or it is woken for another reason."""
        if self.row.has_news:
            return
        self._woken = self.loop.create_future()
        waiting.append(self)
        if not self.row.has_news:  # what came since then may have woken nobody
            await self._woken

    def wake(self) -> None:
        """Called in the event loop."""
        self.has_begun = True
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class BackgroundLoop:
    """Runs the rows of a generator's asynchronous streams in one thread, which ends when there is nothing to do."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.waiting: deque[Reader] = deque()  # the longest first
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn, in order of arrival."""
        self._tell(self._scheduler.submit, row)

    def cancel(self, row: Row) -> None:
        """End a row at the next step."""
        if not row.ended:
            self._tell(self._scheduler.cancel, row)

    def _tell(self, what: Callable[[Row], None], row: Row) -> None:
        with self._lock:
            what(row)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="textgen-generation", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        self._gather()
        while True:
            try:
                self._scheduler.run(time.perf_counter() + _ROUND)
                self._scheduler.flush()
                self._scheduler.pause_unread(_UNREAD)
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
        """Let requests that come in a burst begin together: rows that join a batch one by one cost a copy each."""
        before = 0
        for _ in range(_BURST):
            if self._scheduler.waiting == before:
                return
            before = self._scheduler.waiting
            time.sleep(_PAUSE)

    def _wake(self, count: int) -> None:
        """Wake up to `count` of the readers that have something to take, and all that wait for their first piece."""
        woken: dict[asyncio.AbstractEventLoop, list[Reader]] = {}
        for _ in range(len(self.waiting)):
            reader = self.waiting.popleft()
            if (count > 0 or not reader.has_begun) and reader.row.has_news:
                count -= 1
                woken.setdefault(reader.loop, []).append(reader)
            else:
                self.waiting.append(reader)
        for loop, readers in woken.items():
            try:
                loop.call_soon_threadsafe(_wake_all, readers)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                for reader in readers:
                    self._scheduler.cancel(reader.row)


def _wake_all(readers: Iterable[Reader]) -> None:
    for reader in readers:
        reader.wake()


class AsyncTextStream(StreamedText, AsyncIterator[str]):
    """`TextStream` for asyncio, with the same attributes; an asynchronous context manager.

    The text ends by `aclose`, where a task is cancelled that waits for a piece, and where the stream is dropped.
    """

    def __init__(self, background: BackgroundLoop, row: Row, model_id: str) -> None:
        super().__init__(background, row, model_id)
        self._background, self._reader = background, Reader(row)
        self._is_read = False
        weakref.finalize(self, background.cancel, row).atexit = False

    async def __anext__(self) -> str:
        if self._is_read:
            raise UsageError("another task waits for the next piece of this stream already")
        self._is_read = True
        try:
            while (piece := self._next()) is None:
                await self._reader.wait(self._background.waiting)
        except BaseException as error:  # it failed, or nobody waits for the text any more
            self._failed = isinstance(error, Exception)
            await self.aclose()
            raise
        finally:
            self._is_read = False
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """End it: nothing more comes."""
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
    try:
        reader = Reader(row)
        while not row.ended:
            await reader.wait(background.waiting)
    finally:
        background.cancel(row)
