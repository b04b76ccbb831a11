"""The ASGI application: its routes, and the work that goes on between requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from textgen import PluginSet, TextgenError
from textgen_serve.completions import Job
from textgen_serve.errors import ApiError
from textgen_serve.exchange import Endpoint, Exchange
from textgen_serve.limits import Limits
from textgen_serve.models import Runs, end_id
from textgen_serve.parameters import read_completion

_PAGE: Final = Path(__file__).parent / "page"
_END: Final = "<|endoftext|>"
_STREAM: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Server:
    """The endpoints, on the runs that are served."""

    def __init__(self, runs: Runs, limits: Limits, *, ignore_unknown: bool = False) -> None:
        self.runs, self._limits, self._ignore_unknown = runs, limits, ignore_unknown
        self._texts = 0  # generated or waiting

    def routes(self) -> list[BaseRoute]:
        """The routes of the API."""
        table: list[tuple[str, str, Callable[[Exchange], Awaitable[None]]]] = [
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{id:path}", self.model),
            ("POST", "/v1/completions", self.completions),
            ("POST", "/tokenize", self.tokenize),
            ("POST", "/detokenize", self.detokenize),
            ("GET", "/tokenizer_info", self.tokenizer_info),
            ("GET", "/health", self.health),
        ]
        return [
            Route(path, Endpoint(function), methods=[method]) for method, path, function in table
        ]

    async def models(self, exchange: Exchange) -> None:
        """GET /v1/models."""
        await exchange.json({"object": "list", "data": [run.card() for run in self.runs]})

    async def model(self, exchange: Exchange) -> None:
        """GET /v1/models/{id}."""
        run = self.runs.find(exchange.params["id"])
        await exchange.json(await asyncio.to_thread(run.full_card, self.runs.options))

    async def completions(self, exchange: Exchange) -> None:
        """POST /v1/completions."""
        body = await exchange.body(self._limits.body_bytes)
        run = self.runs.find(body.get("model"))
        defaults = run.generator.defaults
        asked = read_completion(
            body, self.runs.options, self._limits, defaults, ignore_unknown=self._ignore_unknown
        )
        if asked.ignored:
            names = ", ".join(asked.ignored).encode("ascii", "backslashreplace")
            exchange.headers.append((b"x-ignored-parameters", names))
        job = Job(run, asked, self._limits.prompt_tokens)
        with self._admitted(asked.rows):
            await exchange.while_connected(
                _streamed(exchange, job) if asked.stream else _whole(exchange, job)
            )

    async def tokenize(self, exchange: Exchange) -> None:
        """POST /tokenize, in vLLM's shape. Characters outside the vocabulary become the unknown token."""
        body = await exchange.body(self._limits.body_bytes)
        generator, text = self.runs.find(body.get("model")).generator, body.get("prompt")
        if not isinstance(text, str):
            raise ApiError(400, "prompt must be a string", param="prompt")
        end, tokenizer = end_id(generator), generator.tokenizer
        is_end = text == _END and end is not None
        ids = [end] if is_end else (await asyncio.to_thread(tokenizer.encode, text)).tolist()
        made = {"count": len(ids), "max_model_len": self._limits.prompt_tokens, "tokens": ids}
        if body.get("return_token_strs"):
            made["token_strs"] = [tokenizer.decode(np.array([token])) for token in ids]
        await exchange.json(made)

    async def detokenize(self, exchange: Exchange) -> None:
        """POST /detokenize, in vLLM's shape."""
        body = await exchange.body(self._limits.body_bytes)
        generator, ids = self.runs.find(body.get("model")).generator, body.get("tokens")
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise ApiError(400, "tokens must be a list of token ids", param="tokens")
        try:
            checked = generator.encode_prompt(ids)
        except TextgenError as error:
            raise ApiError.of(error, {"prompt": "tokens"}) from error
        await exchange.json(
            {"prompt": await asyncio.to_thread(generator.tokenizer.decode, checked)}
        )

    async def tokenizer_info(self, exchange: Exchange) -> None:
        """GET /tokenizer_info: the end of a document has a name by which /tokenize knows it, or is null."""
        generator = self.runs.find(None).generator
        kind = generator.tables.get("tokenizer", {}).get("type")
        end = None if end_id(generator) is None else _END
        await exchange.json({"tokenizer_class": kind, "bos_token": None, "eos_token": end})

    async def health(self, exchange: Exchange) -> None:
        """GET /health: the server answers."""
        await exchange.json({"status": "ok"})

    @contextlib.contextmanager
    def _admitted(self, texts: int) -> Iterator[None]:
        """Count texts while they are generated or wait. Raises ApiError where too many do."""
        if self._texts + texts > self._limits.texts:
            raise ApiError(429, "too many requests are waiting; try again later")
        self._texts += texts
        try:
            yield
        finally:
            self._texts -= texts


async def _whole(exchange: Exchange, job: Job) -> None:
    await job.prepare()
    await exchange.json(await job.answer())


async def _streamed(exchange: Exchange, job: Job) -> None:
    await job.prepare()
    streams = await job.open()
    await exchange.start(200, _STREAM)
    async with contextlib.aclosing(job.events(streams)) as events:
        async for event in events:
            await exchange.write(event)
    await exchange.write(b"data: [DONE]\n\n", more=False)


def create_app(
    runs: Mapping[str, Path],
    *,
    plugins: PluginSet | None = None,
    device: str = "auto",
    limits: Limits | None = None,
    ignore_unknown: bool = False,
) -> ASGIApp:
    """The application for runs by name. Loads them, and raises what `textgen.load` raises."""
    loaded = Runs(runs, plugins or PluginSet.discover(), device)
    server = Server(loaded, limits or Limits(), ignore_unknown=ignore_unknown)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(loaded.watch())
        try:
            yield
        finally:
            task.cancel()

    page = Mount("/", StaticFiles(directory=_PAGE, html=True))
    return Starlette(
        routes=[*server.routes(), page],
        lifespan=lifespan,
        exception_handlers={404: _failed, 405: _failed, Exception: _crashed},
    )


async def _failed(_: Request, error: Any) -> Response:
    refusal = ApiError(error.status_code, str(error.detail))
    return JSONResponse(refusal.body(), error.status_code, dict(error.headers or {}))


async def _crashed(_: Request, __: Exception) -> Response:
    return JSONResponse(ApiError(500, "the server failed; its log has more").body(), 500)
