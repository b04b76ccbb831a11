"""Bodies that are files, and work in the folder of a desk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from typing import Any

from textgen import CorpusError, TextgenError, UsageError
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


async def done(function: Callable[..., Any], *given: Any) -> Any:
    """The result of a function, in a thread. Faults of a request become its answer."""
    try:
        return await asyncio.to_thread(function, *given)
    except (UsageError, CorpusError) as error:
        raise ApiError(400, str(error)) from error
    except TextgenError as error:
        raise ApiError(500, str(error)) from error
    except OSError as error:
        raise ApiError(500, f"{error.filename or 'the folder'}: {error.strerror}") from error
