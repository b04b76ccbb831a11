"""HTTP/1.1 of uvicorn with limits on what a connection may send, and how long it may take."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD: Final = 1 << 16  # bytes of a request beside its body: head, frames of chunks, trailers
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
    _head = 0  # bytes so far, less those of the body
    _fields = 0  # bytes of the first line and the headers, which one packet may have whole
    _is_in_body = False

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
        """Read bytes of a request; close the connection if too many are not its body."""
        self._head += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head > _HEAD:
            self.send_400_response("The request is too long beside its body.")
        elif self.cycle is None or self.cycle.response_complete:
            self._expect()  # bytes that begin no request stop the timer between requests

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        if len(self.pipeline) >= _PIPELINED:
            raise _TooMany  # the parser stops, and uvicorn answers with status 400
        super().on_message_begin()
        self._fields = 0
        self._expect()

    def on_url(self, url: bytes) -> None:
        """A part of the first line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a field of a trailer, which has no use here."""
        if not self._is_in_body:
            self._count(len(name) + len(value) + len(": \r\n"))
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._is_in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._head, self._is_in_body = 0, False
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

    def _count(self, size: int) -> None:
        self._fields += size
        if self._fields > _HEAD:
            raise _TooMany

    def _expect(self) -> None:
        if self._receiving is None:
            self._receiving = self.loop.call_later(self.receive_seconds, self.transport.close)

    def _received(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None
