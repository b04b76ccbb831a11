"""Streams for asyncio: what takes time is done in a thread of its own, and the event loop stays free."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Final, TypeVar

from textgen.generation.decoding import FinishReason
from textgen.generation.state import GenerationState
from textgen.generation.streams import TextStream

# For so long pieces are gathered before the event loop hears of them: a turn costs more than a small model's token.
_SECONDS: Final = 0.005

_Value = TypeVar("_Value")


class AsyncTextStream(AsyncIterator[str]):
    """`TextStream` for asyncio. The text ends by `aclose`, and where a task is cancelled that waits for a piece."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream
        self._come: deque[str] = deque()
        self._batches = in_thread(stream, stream.cancel)

    async def __anext__(self) -> str:
        if not self._come:
            self._come.extend(await anext(self._batches))
        return self._come.popleft()

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until it has ended; then as in Generation."""
        return None if self._come else self._stream.finish_reason

    @property
    def state(self) -> GenerationState | None:
        """None until it has ended, and without `keep_state`; then what goes on from there."""
        return None if self._come else self._stream.state

    def cancel(self) -> None:
        """End the text, from any thread: what is made already still comes, and what was held back, as the last."""
        self._stream.cancel()

    async def aclose(self) -> None:
        """Leave it: nothing more comes."""
        self._come.clear()
        self._stream.close()
        await self._batches.aclose()


async def in_thread(values: Iterator[_Value], cancel: Callable[[], None]) -> AsyncGenerator[list[_Value]]:
    """Lists of what an iterator gives. `cancel` tells it to end when nobody waits for it any more.

    The thread is its own, not one of the event loop's: those are few, and the whole program waits for them.
    """
    loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(1, "textgen-stream")
    try:
        while True:
            taken, error = await loop.run_in_executor(pool, contextvars.copy_context().run, _take, values)
            if taken:
                yield taken
            if error is not None:
                raise error
            if not taken:
                return
    finally:
        cancel()
        pool.shutdown(wait=False)


async def one_by_one(batches: AsyncGenerator[list[list[_Value]]]) -> AsyncGenerator[_Value]:
    """What lists of lists hold."""
    async with aclosing(batches):
        async for batch in batches:
            for values in batch:
                for value in values:
                    yield value


def _take(values: Iterator[_Value]) -> tuple[list[_Value], Exception | None]:
    """At least one value, if there is one, and what more comes within a moment; and what went wrong after that."""
    until, taken = time.perf_counter() + _SECONDS, []
    try:
        for value in values:
            taken.append(value)
            if time.perf_counter() >= until:
                break
    except Exception as error:
        return taken, error
    return taken, None
