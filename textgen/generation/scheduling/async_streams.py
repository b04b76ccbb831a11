"""Streams for asyncio.

One background thread runs the requests of all of them, and their event loops stay free.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Self, TypeVar, cast

from textgen.errors import UsageError
from textgen.generation.scheduling.scheduler import Scheduler
from textgen.generation.scheduling.streams import StreamedText
from textgen.generation.texts.row import Row

# Seconds of CPU time of a round, for each of which it wakes a reader.
_WAKE_SECONDS: Final = 0.0004


class Reader:
    """Waits in an event loop for what comes of a row."""

    def __init__(self, row: Row) -> None:
        import asyncio  # slow to import

        self.row = row
        self.loop, self.woken = asyncio.get_running_loop(), asyncio.Event()

    async def wait(self, waiting: deque[Reader]) -> None:
        """Wait for its turn to take what has come, or until it is woken for another reason."""
        self.woken.clear()
        if self._is_pending():
            waiting.append(self)
            if self._is_pending():  # what ended it since then may have woken nobody
                await self.woken.wait()

    def _is_pending(self) -> bool:
        """Whether the scheduler will make more of the row, and wake its reader."""
        return not (self.row.ended or self.row.waits_for_reader)


def wake(readers: Sequence[Reader]) -> None:
    """Wake readers of one event loop, from any thread: each call of the loop costs much."""

    def wake_all() -> None:
        for reader in readers:
            reader.woken.set()

    try:
        readers[0].loop.call_soon_threadsafe(wake_all)
    except RuntimeError:  # the loop is closed, and nobody waits any more
        for reader in readers:
            reader.row.cancel()


class BackgroundLoop:
    """Runs the rows of a generator's asynchronous streams in one thread, which ends when there is
    nothing to do.

    Rows with more than `few` lanes run in the scheduler `large`. While both schedulers have rows,
    each gets half of the time: a row that takes all lanes does not keep the others out, and neither
    has to pause.
    """

    def __init__(self, small: Scheduler, large: Scheduler, few: int) -> None:
        self.waiting: deque[Reader] = deque()  # the longest first
        self._small, self._large, self._few = small, large, few
        self._ahead = 0.0  # seconds that the large rows had more than the small ones
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, row: Row) -> None:
        """Let a row wait for its turn, in order of arrival.

        Raises UsageError in a process that was forked while there was a thread.
        """
        import asyncio

        with self._lock:
            if self._thread is None:  # what else the event loop has ready begins together with it
                asyncio.get_running_loop().call_soon(self._start)
            elif not self._thread.is_alive():
                raise UsageError(
                    "this process was forked while a thread made texts, which is not in it; load "
                    "the run in the new process"
                )
            (self._small if row.lanes <= self._few else self._large).submit(row)

    def join(self) -> None:
        """Wait until its rows have ended."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._is_idle:
                return
            thread = threading.Thread(target=self._run, name="textgen-generation", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # there are too many
                self._abort(error)
                self._wake(len(self.waiting))
            else:
                self._thread = thread

    def _run(self) -> None:
        while True:
            begun = time.thread_time()
            try:
                self._run_one()
            except BaseException as error:
                # A fault of a scheduler itself: nobody may wait for ever.
                self._abort(error)
            self._wake(1 + int((time.thread_time() - begun) / _WAKE_SECONDS))
            with self._lock:
                if self._is_idle:
                    self._wake(len(self.waiting))
                    self._thread = None
                    return

    def _run_one(self) -> None:
        """Run the scheduler whose turn it is."""
        if self._small.is_idle or self._large.is_idle:
            self._ahead = 0.0
        is_small = self._large.is_idle or (self._ahead >= 0 and not self._small.is_idle)
        scheduler, began = self._small if is_small else self._large, time.perf_counter()
        scheduler.run()
        scheduler.flush()
        taken = time.perf_counter() - began
        self._ahead += -taken if is_small else taken

    @property
    def _is_idle(self) -> bool:
        return self._small.is_idle and self._large.is_idle

    def _abort(self, error: BaseException) -> None:
        """End all rows with an error."""
        self._small.abort(error)
        self._large.abort(error)

    def _wake(self, count: int) -> None:
        """Wake up to `count` of the readers that have something to take, and all that wait for
        their first piece.
        """
        woken = defaultdict[Any, list[Reader]](list)
        for _ in range(len(self.waiting)):
            reader = self.waiting.popleft()
            if reader.row.has_news and (count > 0 or not reader.row.taken):
                count -= 1
                woken[reader.loop].append(reader)
            else:
                self.waiting.append(reader)
        for readers in woken.values():
            wake(readers)


class AsyncTextStream(StreamedText, AsyncIterator[str]):
    """`TextStream` for asyncio, with the same attributes.

    The text ends when the `async with` block is left, when a task that waits for a piece is
    cancelled, and when the stream is closed or dropped.
    """

    def __init__(self, background: BackgroundLoop, row: Row, model_id: str) -> None:
        super().__init__(background.submit, row, model_id)
        self._waiting, self._reader = background.waiting, Reader(row)
        weakref.finalize(self, row.cancel).atexit = False

    async def __anext__(self) -> str:
        self._begin_piece()
        try:
            if self._has_begun:
                await self._reader.wait(self._waiting)
            while (piece := self._next()) is None:
                await self._reader.wait(self._waiting)
        except BaseException as error:  # it failed, or nobody waits for the text any more
            self._leave(error)
            raise
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """End the text, without a further piece."""
        self._leave()
        wake([self._reader])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


_Made = TypeVar("_Made")


async def in_thread(function: Callable[[Callable[[], bool]], _Made]) -> _Made:
    """Call a function in a thread, with a function that is true once the task is cancelled.

    The task ends only after the thread is done with it, so that whoever counts tasks counts work.
    """
    import asyncio

    gone = threading.Event()

    def call() -> _Made | None:
        return None if gone.is_set() else function(gone.is_set)

    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        made = await asyncio.shield(work)
    except asyncio.CancelledError:
        gone.set()
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # which nobody asks for
        raise
    return cast("_Made", made)


async def until_ended(background: BackgroundLoop, row: Row) -> None:
    """Make a whole text. It ends where the task is cancelled."""
    row.whole = True
    background.submit(row)
    reader = Reader(row)
    try:
        while not row.ended:
            await reader.wait(background.waiting)
    finally:
        row.cancel()
