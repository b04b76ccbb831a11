"""HTTP/1.1 of uvicorn with limits on what a connection may send, and how long it may take."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD: Final = 1 << 16  # bytes of a request line and its headers
_PARTS: Final = 10_000  # chunks of a body: each takes time, however short it is
_PIPELINED: Final = 16  # requests that are sent before the answer to another


class _TooMany(Exception):
    pass


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection that takes too long to send a request, or to take in an answer.

    uvicorn itself has a deadline between requests only. `receive_seconds` hold for a whole request,
    `send_seconds` for the time in which a full buffer is not read.
    """

    receive_seconds = 30.0
    send_seconds = 30.0
    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _head: int | None = 0  # bytes so far; None within a body
    _parts = 0  # of a body so far

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._received()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read bytes of a request; close the connection if its head is too long."""
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head is not None and self._head > _HEAD:
            self.send_400_response("The head of the request is too long.")
        elif self.cycle is None or self.cycle.response_complete:
            self._expect()  # bytes that begin no request stop the timer between requests

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        if len(self.pipeline) >= _PIPELINED:
            raise _TooMany  # the parser stops, and uvicorn answers with status 400
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._head, self._parts = None, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._parts += 1
        if self._parts > _PARTS:
            raise _TooMany
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._head = 0
        self._received()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read what waited for it."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        super().resume_writing()

    def _expect(self) -> None:
        if self._receiving is None:
            self._receiving = self.loop.call_later(self.receive_seconds, self.transport.close)

    def _received(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None
