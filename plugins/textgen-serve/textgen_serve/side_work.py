"""Work beside completions, in threads of its own: texts that are tokenised or searched."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from textgen_serve.exchange import JSON, Exchange
from textgen_serve.json_body import dump_long

_THREADS: Final = 4
_OF_A_CLIENT: Final = 2  # threads that one client has at a time
IsGone = Callable[[], bool]


class SideWork:
    """The threads, and the turns of clients.

    They are not those of asyncio, in which prompts of completions are prepared.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "textgen-side-work")
        self._turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(_OF_A_CLIENT))

    async def answer(self, exchange: Exchange, function: Callable[[IsGone], Any]) -> None:
        """Send what a function returns as JSON. It may ask whether the client is gone.

        This ends once the function has. Raises ClientGone where the client goes before its turn,
        and what the function raises.
        """
        turn = self._turns[exchange.client]
        await exchange.while_connected(_acquired(turn))
        gone = threading.Event()
        watch = asyncio.create_task(exchange.gone())
        watch.add_done_callback(lambda _: gone.set())
        try:
            loop = asyncio.get_running_loop()
            data = await loop.run_in_executor(
                self._threads, lambda: dump_long(function(gone.is_set))
            )
        finally:
            turn.release()
            watch.cancel()
        await exchange.whole(data, 200, [JSON])


async def _acquired(turn: asyncio.Semaphore) -> None:
    await turn.acquire()
