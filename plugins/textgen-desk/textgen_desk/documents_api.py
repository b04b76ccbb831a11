"""The endpoints of documents: those of the runs of a desk, and texts from and to files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import attrs
from starlette.routing import BaseRoute

from textgen_desk.conversion import text_in
from textgen_desk.desk import Desk
from textgen_desk.desk_work import done
from textgen_desk.documents import ConflictError, Documents
from textgen_desk.uploads import received, spooled
from textgen_desk.word import docx_of
from textgen_serve.app import Answer, Server
from textgen_serve.errors import ApiError
from textgen_serve.exchange import JSON, Exchange, header
from textgen_serve.json_body import dump_long
from textgen_serve.limits import Limits

_DOCUMENT_BYTES: Final = 1 << 25  # bytes of a document with its versions, or of a file
_VALUES: Final = 2_000_000  # numbers, strings, lists and objects of it
_CONVERSIONS: Final = 2  # files that are read at one time
_DOCX: Final = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@attrs.frozen
class DocumentsApi:
    """Answers about the documents of a desk, which are read and written in a thread."""

    server: Server
    desk: Desk

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        of_run = "/desk/runs/{name}/documents"
        offered: list[tuple[str, str, Answer]] = [
            ("GET", of_run, self.titles),
            ("GET", f"{of_run}/{{title}}", self.read),
            ("PUT", f"{of_run}/{{title}}", self.write),
            ("POST", f"{of_run}/{{title}}/{{action}}", self.act),
        ]
        return [self.server.route(method, path, answer) for method, path, answer in offered]

    async def titles(self, exchange: Exchange) -> None:
        """GET: the documents of a run, the newest first."""
        found = await self._with(exchange, Documents.titles)
        await exchange.json({"documents": found})

    async def read(self, exchange: Exchange) -> None:
        """GET: a document, with its ETag."""
        title = exchange.params["title"]
        found = await self._with(exchange, Documents.read, title)
        data = await asyncio.to_thread(dump_long, {"tree": found.tree, "text": found.text})
        await exchange.whole(data, 200, [JSON, (b"etag", found.etag.encode())])

    async def write(self, exchange: Exchange) -> None:
        """PUT: a document, if it is still what `If-Match` says, or new where there is none."""
        body = await exchange.body(_for_documents(self.server.limits))
        if not isinstance(text := body.get("text"), str) or "tree" not in body:
            raise ApiError(400, "a document has a text and a tree", param="text")
        etag = header(exchange.scope, b"if-match").decode("latin-1") or None
        title, tree = exchange.params["title"], body["tree"]
        try:
            new = await self._with(exchange, Documents.write, title, text, tree, etag)
        except ConflictError:
            cause = f"{title} was changed elsewhere since it was read"
            raise ApiError(412, cause, code="conflict") from None
        await exchange.json({"etag": new})

    async def act(self, exchange: Exchange) -> None:
        """POST: rename a document, or move it to the bin."""
        title, action = exchange.params["title"], exchange.params["action"]
        body = await exchange.body(self.server.limits)
        wished = body.get("title")
        if action == "remove":
            await self._with(exchange, Documents.remove, title)
        elif action == "rename" and isinstance(wished, str):
            await self._with(exchange, Documents.rename, title, wished)
        else:
            raise ApiError(400, "expected rename with a title, or remove")
        await exchange.json({})

    async def _with(self, exchange: Exchange, method: Callable[..., Any], *given: Any) -> Any:
        """What a method of the documents of a run gives. Raises ApiError, ConflictError."""
        desk, name = self.desk, exchange.params["name"]
        return await done(desk.folder, lambda: method(desk.documents(name), *given))


@attrs.frozen
class FilesApi:
    """Texts from files of any format that textgen reads, and as Word documents."""

    server: Server
    _turns: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(_CONVERSIONS))

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        return [
            self.server.route("PUT", "/text/{file}", self.text),
            self.server.route("POST", "/docx", self.docx),
        ]

    async def text(self, exchange: Exchange) -> None:
        """PUT /text/{file}: the text of a file, whose name tells its format."""
        with spooled() as content:
            await received(exchange, content.write, _DOCUMENT_BYTES)
            content.seek(0)
            await exchange.while_connected(self._send_text(exchange, content))

    async def _send_text(self, exchange: Exchange, content: BinaryIO) -> None:
        file, limits = exchange.params["file"], self.server.limits
        async with self._turns:
            text = await text_in(file, content, limits.body_bytes, limits.seconds)
        await exchange.json({"text": text})

    async def docx(self, exchange: Exchange) -> None:
        """POST /docx: a text as a Word document."""
        text = (await exchange.body(_for_documents(self.server.limits))).get("text")
        if not isinstance(text, str):
            raise ApiError(400, "text must be a string", param="text")
        data = await asyncio.to_thread(docx_of, text)
        await exchange.whole(data, 200, [(b"content-type", _DOCX)])


def _for_documents(limits: Limits) -> Limits:
    """The limits of a request that has a whole document."""
    return attrs.evolve(limits, body_bytes=_DOCUMENT_BYTES, body_values=_VALUES)
