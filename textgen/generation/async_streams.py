"""Streams for asyncio. One background thread runs the requests of all of them, and their event loops stay free."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Final, Self

from textgen.generation.continuation import Continuation
from textgen.generation.results import Piece
from textgen.generation.row import Row
from textgen.generation.scheduler import Scheduler
from textgen.generation.streams import StreamedText, StreamedTexts

_ROUND: Final = 0.005  # seconds of work after which readers are woken
_AT_ONCE: Final = 12  # readers woken in a round: each takes some 20 microseconds of its event loop
_PAUSE: Final = (
    0.001  # seconds that an idle generator waits for more requests, for as long as more come
)
_BURST: Final = 20  # times at most
_UNREAD: Final = 1 << 14  # tokens that a reader may be behind before its text pauses


class Reader:
    """What waits in an event loop for the tokens of rows."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.rows: list[Row] = []
        self.has_begun = False
        self._woken: asyncio.Future[None] | None = None

    def has_news(self) -> bool:
        """Whether there is something to take."""
        return any(row.has_news for row in self.rows)

    async def wait(self, rows: Iterable[Row], waiting: deque[Reader]) -> None:
        """Until there is something to take of `rows`."""
        self.rows = list(rows)
        while not self.has_news():
            self._woken = self.loop.create_future()
            waiting.append(self)
            if not self.has_news():  # what came since then may have woken nobody
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
            if (count > 0 or not reader.has_begun) and reader.has_news():
                count -= 1
                woken.setdefault(reader.loop, []).append(reader)
            else:
                self.waiting.append(reader)
        for loop, readers in woken.items():
            try:
                loop.call_soon_threadsafe(_wake_all, readers)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                for row in (row for reader in readers for row in reader.rows):
                    self._scheduler.cancel(row)


def _wake_all(readers: Iterable[Reader]) -> None:
    for reader in readers:
        reader.wake()


class _AsyncReading:
    """An asynchronous context manager, which closes what it is, and what it waits with."""

    def __init__(self, background: BackgroundLoop, texts: list[Continuation]) -> None:
        self._background, self._unfinished = background, texts
        self._reader: Reader | None = None
        weakref.finalize(self, _cancel, background, texts).atexit = False

    async def aclose(self) -> None:
        """Leave it: nothing more comes."""
        self._leave()

    def _leave(self) -> None:
        raise NotImplementedError

    async def _wait(self) -> None:
        if self._reader is None:
            self._reader = Reader()
        await self._reader.wait([text.row for text in self._unfinished], self._background.waiting)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncTextStream(StreamedText, _AsyncReading, AsyncIterator[str]):
    """`TextStream` for asyncio, with the same attributes; an asynchronous context manager.

    The text ends by `aclose`, where a task is cancelled that waits for a piece, and where the stream is dropped.
    """

    def __init__(self, background: BackgroundLoop, text: Continuation, model_id: str) -> None:
        _AsyncReading.__init__(self, background, [text])
        StreamedText.__init__(self, background, text, model_id)

    async def __anext__(self) -> str:
        try:
            while (piece := self._next()) is None:
                await self._wait()
        except BaseException as error:  # it failed, or nobody waits for the text any more
            self._failed = isinstance(error, Exception)
            await self.aclose()
            raise
        if not piece:
            raise StopAsyncIteration
        return piece


class AsyncPieces(_AsyncReading, AsyncIterator[Piece]):
    """The pieces of `Generator.astream_many`; closed as AsyncTextStream is."""

    def __init__(
        self, background: BackgroundLoop, texts: Iterator[Continuation], size: int
    ) -> None:
        self._texts = StreamedTexts(background, texts, size)
        super().__init__(background, self._texts.running)

    async def __anext__(self) -> Piece:
        try:
            while (piece := self._texts.next_piece()) is None and self._texts.running:
                await self._wait()
        except BaseException:
            await self.aclose()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def _leave(self) -> None:
        self._texts.leave()


def _cancel(background: BackgroundLoop, texts: Iterable[Continuation]) -> None:
    for text in texts:
        background.cancel(text.row)
