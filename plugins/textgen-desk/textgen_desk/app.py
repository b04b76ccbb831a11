"""The ASGI application: that of textgen_serve, with the page and what it asks for."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import textgen_serve.app
from textgen import PluginSet
from textgen_desk.desk import Desk
from textgen_desk.desk_api import DeskApi
from textgen_desk.documents_api import DocumentsApi, FilesApi
from textgen_desk.text_api import TextApi
from textgen_serve.app import Server

_PAGE: Final = Path(__file__).parent / "page"


def create_app(
    runs: Mapping[str, str | Path],
    *,
    desk: Desk | None = None,
    plugins: PluginSet | None = None,
    **options: Any,
) -> ASGIApp:
    """The application for runs by name, or those of a desk. Another application can mount it.

    options  those of `textgen_serve.app.create_app`

    Loads the runs, and raises what `textgen.load` raises.
    """
    found = plugins or PluginSet.discover()

    def routes(server: Server) -> list[BaseRoute]:
        made = [*TextApi(server, found).routes(), *FilesApi(server).routes()]
        if desk is not None:
            made += [*DocumentsApi(server, desk).routes(), *DeskApi(server, desk).routes()]
        return [*made, *_pages(is_desk=desk is not None)]

    more_runs = dict if desk is None else desk.runs
    return textgen_serve.app.create_app(
        runs, plugins=found, more_runs=more_runs, more_routes=routes, **options
    )


def _pages(*, is_desk: bool) -> list[BaseRoute]:
    """The files of the page; with a desk, its own page is the first, and writing is at /write."""
    files = StaticFiles(directory=_PAGE)
    first = {"/": "desk.html", "/write": "index.html"} if is_desk else {"/": "index.html"}
    named = [Route(f"/{name}", files, methods=["GET"]) for name in sorted(os.listdir(_PAGE))]
    return [*(Route(p, _file(n), methods=["GET"]) for p, n in first.items()), *named]


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return FileResponse(_PAGE / name)

    return answer
