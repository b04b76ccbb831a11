"""Streams for asyncio. One background thread runs the requests of all of them, and their event loops stay free."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from textgen.generation.continuation import Continuation
from textgen.generation.results import Piece
from textgen.generation.scheduler import Scheduler
from textgen.generation.streams import StreamedText

_ROUND: Final = 0.005  # seconds of work after which readers are woken
_AT_ONCE: Final = 12  # readers woken in a round: each takes some 20 microseconds of its event loop
_PAUSE: Final = 0.001  # seconds that an idle generator waits for more requests, for as long as more come
_BURST: Final = 20  # times at most
_UNREAD: Final = 1 << 14  # tokens that a reader may be behind before its text pauses


class Reader:
    """What waits for texts in an event loop."""

    def __init__(self, texts: Iterable[Continuation]) -> None:
        self.texts = list(texts)
        self.loop = asyncio.get_running_loop()
        self.has_begun = False
        self._woken: asyncio.Future[None] | None = None

    def has_news(self) -> bool:
        """Whether there is something to take."""
        return any(text.row.has_news for text in self.texts)

    async def wait(self, waiting: deque[Reader]) -> None:
        """Until there is something to take."""
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

    def submit(self, text: Continuation) -> None:
        """Let a row wait for its turn, in order of arrival."""
        self._tell(self._scheduler.submit, text)

    def cancel(self, text: Continuation) -> None:
        """End a row at the next step."""
        if not text.row.ended:
            self._tell(self._scheduler.cancel, text)

    def _tell(self, what: Callable[..., None], text: Continuation) -> None:
        with self._lock:
            what(text.row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="textgen-generation", daemon=True)
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
                for text in (text for reader in readers for text in reader.texts):
                    self._scheduler.cancel(text.row)


def _wake_all(readers: Iterable[Reader]) -> None:
    for reader in readers:
        reader.wake()


class _Closable:
    """An asynchronous context manager that closes what it is."""

    async def aclose(self) -> None:
        """Leave it: nothing more comes."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncTextStream(StreamedText, _Closable, AsyncIterator[str]):
    """`TextStream` for asyncio, with the same attributes; an asynchronous context manager.

    The text ends by `aclose`, where a task is cancelled that waits for a piece, and where the stream is dropped.
    """

    def __init__(self, background: BackgroundLoop, text: Continuation, time_limit: float | None, model_id: str) -> None:
        super().__init__(text, time_limit, model_id)
        self._background = background
        self._reader: Reader | None = None
        weakref.finalize(self, background.cancel, text).atexit = False

    async def __anext__(self) -> str:
        text, row = self._text, self._text.row
        while not self._closed:
            if self._reader is None:  # the clock starts with the first piece
                self._reader = Reader([text])
                row.begin(self._time_limit)
                self._background.submit(text)
            piece = self._take()
            if row.resumes():
                self._background.submit(text)
            if piece:
                return piece
            if row.error is not None:
                self._closed = True
                raise row.error
            if self.finish_reason is not None:
                break
            try:
                await self._reader.wait(self._background.waiting)
            except BaseException:  # nobody waits for the text any more
                await self.aclose()
                raise
        raise StopAsyncIteration

    def cancel(self) -> None:
        """End the text, from any thread: what is made already still comes, and what was held back, as the last."""
        self._background.cancel(self._text)

    async def aclose(self) -> None:
        """Leave it: nothing more comes."""
        self._closed = True
        self._background.cancel(self._text)


class AsyncPieces(_Closable, AsyncIterator[Piece]):
    """The pieces of `Generator.astream_many`; closed as AsyncTextStream is."""

    def __init__(self, background: BackgroundLoop, texts: Iterator[Continuation], batch_size: int) -> None:
        self._background, self._texts, self._batch_size = background, texts, batch_size
        self._come: deque[Piece] = deque()
        self._running: list[Continuation] = []
        weakref.finalize(self, _cancel_all, background, self._running).atexit = False
        self._reader: Reader | None = None
        self._closed = False

    async def __anext__(self) -> Piece:
        if self._reader is None:
            self._reader = Reader(())
            self._reader.texts = self._running
        while not self._come and not self._closed:
            while len(self._running) < self._batch_size and (text := next(self._texts, None)) is not None:
                self._running.append(text)
                self._background.submit(text)
            if not self._running:
                break
            try:
                self._take()
                if not self._come:
                    await self._reader.wait(self._background.waiting)
            except BaseException:
                await self.aclose()
                raise
        if not self._come:
            raise StopAsyncIteration
        return self._come.popleft()

    async def aclose(self) -> None:
        """Leave them: nothing more comes."""
        self._closed = True
        self._come.clear()
        _cancel_all(self._background, self._running)

    def _take(self) -> None:
        for text in tuple(self._running):
            piece, _ = text.take()
            if text.row.error is not None:
                raise text.row.error
            if text.row.resumes():
                self._background.submit(text)
            if piece or text.finish_reason is not None:
                self._come.append(Piece(text.row.index, piece, text.finish_reason))
            if text.finish_reason is not None:
                self._running.remove(text)


def _cancel_all(background: BackgroundLoop, texts: Iterable[Continuation]) -> None:
    for text in texts:
        background.cancel(text)
