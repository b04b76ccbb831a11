"""The ASGI application: its routes, and the work that goes on between requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
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
from textgen_serve.completions import Job, next_tokens
from textgen_serve.copies import copied_passages
from textgen_serve.errors import ApiError, ClientGone
from textgen_serve.exchange import JSON, Endpoint, Exchange
from textgen_serve.guard import Access, Guard
from textgen_serve.limits import Limits
from textgen_serve.metrics import Metrics
from textgen_serve.models import Runs, ServedRun, end_id
from textgen_serve.parameters import Completion, read_completion

_PAGE: Final = Path(__file__).parent / "page"
_OPENAPI: Final = Path(__file__).with_name("openapi.json")
_END: Final = "<|endoftext|>"
_LIKELIEST: Final = 10
_PING: Final = 15.0  # seconds without an event
_METRICS: Final = (b"content-type", b"text/plain; version=1.0.0; charset=utf-8")
_STREAM: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Server:
    """The endpoints, on the runs that are served."""

    def __init__(
        self, runs: Runs, limits: Limits, metrics: Metrics, *, ignore_unknown: bool
    ) -> None:
        self.runs, self._limits, self._metrics = runs, limits, metrics
        self._ignore_unknown = ignore_unknown
        self._texts = 0  # generated or waiting
        self._streams: set[Exchange] = set()

    def routes(self, access: Access) -> list[BaseRoute]:
        """The routes of the API."""
        closed: list[tuple[str, str, Callable[[Exchange], Awaitable[None]]]] = [
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{id:path}", self.model),
            ("POST", "/v1/completions", self.completions),
            ("POST", "/v1/chat/completions", self.chat),
            ("POST", "/next_tokens", self.next_tokens),
            ("POST", "/copies", self.copies),
            ("POST", "/tokenize", self.tokenize),
            ("POST", "/detokenize", self.detokenize),
            ("GET", "/tokenizer_info", self.tokenizer_info),
            ("GET", "/metrics", self.metrics_page),
        ]
        return [
            *(Route(p, Endpoint(f, access.check_key), methods=[m]) for m, p, f in closed),
            Route("/openapi.json", Endpoint(self.openapi), methods=["GET"]),
            Route("/health", Endpoint(self.health), methods=["GET"]),
            Route("/ready", Endpoint(self.ready), methods=["GET"]),
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
        run, asked = self._asked(exchange, body)
        job = Job(run, asked, self._limits.prompt_tokens)
        with self._admitted(asked.rows):
            work = self._streamed(exchange, job) if asked.stream else _whole(exchange, job)
            try:
                await exchange.while_connected(work)
            finally:
                self._metrics.prompt_tokens.inc(job.prompt_tokens)
                self._metrics.new_tokens.inc(job.completion_tokens)

    async def chat(self, exchange: Exchange) -> None:
        """POST /v1/chat/completions: refused, since a base model knows no roles."""
        message = (
            "these models continue a text and know no chat; use POST /v1/completions with a prompt"
        )
        raise ApiError(400, message, code="no_chat")

    async def next_tokens(self, exchange: Exchange) -> None:
        """POST /next_tokens, ours: the likeliest next tokens before and after the samplers, `logprobs` of each.

        Takes the parameters of /v1/completions, with one prompt.
        """
        body = await exchange.body(self._limits.body_bytes)
        run, asked = self._asked(exchange, body)
        prompt, count = asked.prompts[0], asked.logprobs or _LIKELIEST
        if len(asked.prompts) > 1 or len(prompt) > self._limits.prompt_tokens:
            message = f"expected one prompt of at most {self._limits.prompt_tokens:,} tokens"
            raise ApiError(400, message, param="prompt")
        with self._admitted(1):
            await exchange.json(
                await asyncio.to_thread(next_tokens, run.generator, prompt, asked, count)
            )

    async def copies(self, exchange: Exchange) -> None:
        """POST /copies, ours: where a text has passages of 16 tokens and more that the training corpus has, too."""
        body = await exchange.body(self._limits.body_bytes)
        generator, text = self.runs.find(body.get("model")).generator, body.get("prompt")
        if not isinstance(text, str) or len(text) > self._limits.prompt_tokens:
            most = self._limits.prompt_tokens
            raise ApiError(
                400, f"prompt must be a string of at most {most:,} characters", param="prompt"
            )
        with self._admitted(1):
            await exchange.json(await asyncio.to_thread(copied_passages, generator, text))

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

    async def openapi(self, exchange: Exchange) -> None:
        """GET /openapi.json."""
        await exchange.whole(_OPENAPI.read_bytes(), 200, [JSON])

    async def health(self, exchange: Exchange) -> None:
        """GET /health: the server answers."""
        await exchange.json({"status": "ok"})

    async def ready(self, exchange: Exchange) -> None:
        """GET /ready: another text would be taken."""
        if self._texts >= self._limits.texts:
            raise ApiError(503, "too many requests are waiting")
        await exchange.json({"status": "ready"})

    async def metrics_page(self, exchange: Exchange) -> None:
        """GET /metrics."""
        await exchange.whole(self._metrics.page(), 200, [_METRICS])

    async def ping(self) -> None:
        """Write a comment to streams that wait for long, so that no proxy takes them for dead, until cancelled."""
        while True:
            await asyncio.sleep(_PING)
            for exchange in [*self._streams]:
                if time.monotonic() - exchange.written > _PING:
                    await exchange.write(b": ping\n\n")

    def _asked(self, exchange: Exchange, body: dict[str, Any]) -> tuple[ServedRun, Completion]:
        """The run and the request in a body; a header of the answer names parameters that are ignored."""
        run = self.runs.find(body.get("model"))
        asked = read_completion(
            body,
            self.runs.options,
            self._limits,
            run.generator.defaults,
            ignore_unknown=self._ignore_unknown,
        )
        if asked.ignored:
            names = ", ".join(asked.ignored).encode("ascii", "backslashreplace")
            exchange.headers.append((b"x-ignored-parameters", names))
        return run, asked

    @contextlib.contextmanager
    def _admitted(self, texts: int) -> Iterator[None]:
        """Count texts while they are generated or wait. Raises ApiError where too many do."""
        if self._texts + texts > self._limits.texts:
            raise ApiError(429, "too many requests are waiting; try again later")
        self._texts += texts
        self._metrics.texts.set(self._texts)
        try:
            yield
        except ClientGone:
            self._metrics.left.inc()
            raise
        finally:
            self._texts -= texts
            self._metrics.texts.set(self._texts)

    async def _streamed(self, exchange: Exchange, job: Job) -> None:
        begun, is_first = time.perf_counter(), True
        await job.prepare()
        streams = await job.open()
        await exchange.start(200, _STREAM)
        self._streams.add(exchange)
        try:
            async with contextlib.aclosing(job.events(streams)) as events:
                async for event in events:
                    if is_first:
                        is_first = False
                        self._metrics.first_token.observe(time.perf_counter() - begun)
                    await exchange.write(event)
        finally:
            self._streams.discard(exchange)
        await exchange.write(b"data: [DONE]\n\n", more=False)


async def _whole(exchange: Exchange, job: Job) -> None:
    await job.prepare()
    await exchange.whole(await job.answer(), 200, [JSON])


def create_app(
    runs: Mapping[str, Path],
    *,
    plugins: PluginSet | None = None,
    device: str = "auto",
    limits: Limits | None = None,
    access: Access | None = None,
    ignore_unknown: bool = False,
) -> ASGIApp:
    """The application for runs by name. Loads them, and raises what `textgen.load` raises."""
    loaded, metrics = Runs(runs, plugins or PluginSet.discover(), device), Metrics()
    server = Server(loaded, limits or Limits(), metrics, ignore_unknown=ignore_unknown)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(loaded.watch()), asyncio.create_task(server.ping())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    access = access or Access()
    page = Mount("/", StaticFiles(directory=_PAGE, html=True))
    app = Starlette(
        routes=[*server.routes(access), page],
        lifespan=lifespan,
        exception_handlers={404: _failed, 405: _failed, Exception: _crashed},
    )
    return Guard(app, access, metrics)


async def _failed(_: Request, error: Any) -> Response:
    refusal = ApiError(error.status_code, str(error.detail))
    return JSONResponse(refusal.body(), error.status_code, dict(error.headers or {}))


async def _crashed(_: Request, __: Exception) -> Response:
    return JSONResponse(ApiError(500, "the server failed; its log has more").body(), 500)
