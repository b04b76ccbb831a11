"""Bodies that are files."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from typing import Any

from textgen_serve.errors import ApiError, ClientGone
from textgen_serve.exchange import Exchange


def spooled() -> Any:
    """A file in memory for what is uploaded, on disk where that is much."""
    return tempfile.SpooledTemporaryFile(max_size=1 << 20)


async def received(exchange: Exchange, write: Callable[[bytes], object], most: int) -> int:
    """Write the body of a request, of `most` bytes at most. Returns its length.

    Raises ApiError, ClientGone.
    """
    size, more = 0, True
    while more:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size, more = size + len(piece), message.get("more_body", False)
        if size > most:
            raise ApiError(413, f"a file has at most {most:,} bytes")
        await asyncio.to_thread(write, piece)
    return size
