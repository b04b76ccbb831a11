"""One request and its answer, on ASGI itself: one task writes, another watches the client."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import attrs
from starlette.types import Receive, Scope, Send

from textgen_serve.errors import ApiError, ClientGone
from textgen_serve.json_body import dump, parse_object
from textgen_serve.limits import Limits

_INLINE_BODY_BYTES: Final = 1 << 16  # bytes of a body that are parsed in the event loop
_PIECE: Final = 1 << 18  # bytes of an answer that are handed to the connection at once
JSON: Final = (b"content-type", b"application/json")
Headers = list[tuple[bytes, bytes]]


@attrs.define(eq=False)
class Exchange:
    """A request and what is sent for it.

    client   the API key of the client; "" for all where none is needed
    headers  that go out with the answer, whatever it is
    written  when something was sent last, in seconds of time.monotonic; infinity while something is
             being sent
    """

    scope: Scope
    receive: Receive
    send: Send
    client: str = ""
    headers: Headers = attrs.field(factory=list)
    started: bool = False
    written: float = math.inf

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the path."""
        params: dict[str, Any] = self.scope.get("path_params", {})
        return params

    async def body(self, limits: Limits) -> dict[str, Any]:
        """The JSON object that was sent. Raises ApiError, ClientGone."""
        most = limits.body_bytes
        refusal = ApiError(413, f"the body is larger than {most:,} bytes")
        length = header(self.scope, b"content-length")
        if length.isdigit() and int(length) > most:
            raise refusal
        body, more = bytearray(), True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                raise refusal
        if len(body) < _INLINE_BODY_BYTES:
            return parse_object(body, limits.body_values)
        return await asyncio.to_thread(parse_object, body, limits.body_values)

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work, which is cancelled if the client goes away. Raises ClientGone then."""
        tasks = asyncio.create_task(work), asyncio.create_task(self.gone())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done():
                raise ClientGone
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        tasks[0].result()

    async def gone(self) -> None:
        """Wait until the client goes away."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        head = {"status": status, "headers": [*headers, *self.headers]}
        self.started, self.written = True, time.monotonic()
        await self.send({"type": "http.response.start", **head})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the answer; the last one without `more`."""
        self.written = math.inf
        await self.send({"type": "http.response.body", "body": data, "more_body": more})
        if more:
            self.written = time.monotonic()
            await asyncio.sleep(0)  # `send` itself waits only for a client that does not keep up

    async def json(self, value: Any, status: int = 200, headers: Headers | None = None) -> None:
        """Send a JSON value as the whole answer."""
        await self.whole(dump(value), status, [JSON, *(headers or [])])

    async def whole(self, data: bytes, status: int, headers: Headers) -> None:
        """Send a whole answer."""
        await self.start(status, [(b"content-length", b"%d" % len(data)), *headers])
        last = max(0, len(data) - 1) // _PIECE * _PIECE
        for start in range(0, last, _PIECE):
            await self.write(data[start : start + _PIECE])
        await self.write(data[last:], more=False)

    async def fail(self, error: ApiError) -> None:
        """Send an error: as the answer, or as the last event of a stream that has begun."""
        if self.started:
            await self.write(b"data: %s\n\n" % dump(error.body()), more=False)
        else:
            await self.json(error.body(), error.status, error.headers())


@attrs.frozen
class Endpoint:
    """An ASGI application of a function of an exchange. What it raises becomes an answer.

    client  finds the client of a request; raises ApiError for one that is not allowed
    """

    function: Callable[[Exchange], Awaitable[None]]
    client: Callable[[Scope], str] = lambda _: ""

    @property
    def name(self) -> str:
        """Its name in metrics."""
        return str(getattr(self.function, "__name__", "other"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        with contextlib.suppress(ClientGone):
            try:
                exchange.client = self.client(scope)
                if scope["method"] == "POST" and not _is_json(scope):
                    raise ApiError(415, "the content type must be application/json")
                await self.function(exchange)
            except ApiError as error:
                await exchange.fail(error)
            except asyncio.CancelledError:  # the server stops, and its grace is over
                await exchange.fail(ApiError(503, "the server is stopping"))


def _is_json(scope: Scope) -> bool:
    kind = header(scope, b"content-type").partition(b";")[0]
    return kind.strip().lower() == b"application/json"


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a header of a request; b"" where there is none."""
    return next((value for key, value in scope["headers"] if key == name), b"")
