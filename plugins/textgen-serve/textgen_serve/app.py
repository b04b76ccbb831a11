"""The ASGI application: its routes, and the work that goes on between requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from textgen import PluginSet, TextgenError
from textgen_serve.background import Background
from textgen_serve.chat import as_completion
from textgen_serve.completions import Job, next_tokens, refusal
from textgen_serve.errors import ApiError, ClientGone
from textgen_serve.exchange import JSON, Endpoint, Exchange
from textgen_serve.guard import Access, Guard
from textgen_serve.limits import Limits
from textgen_serve.metrics import MODEL, Metrics
from textgen_serve.models import Runs, ServedRun, end_id
from textgen_serve.parameters import Completion, read_completion
from textgen_serve.routes import offered_routes
from textgen_serve.side_work import SideWork
from textgen_serve.texts import END, detokenized, tokenized

_OPENAPI: Final = Path(__file__).with_name("openapi.json")
_LIKELIEST_TOKENS: Final = 10
_HEADER: Final = 4096  # bytes of a header at most
_SCORES_AT_ONCE: Final = 3  # prompts that are scored at once: asyncio has five threads or more
_PING: Final = 15.0  # seconds without an event
_METRICS: Final = (b"content-type", b"text/plain; version=1.0.0; charset=utf-8")
_STREAM: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


Answer = Callable[[Exchange], Awaitable[None]]


class Server:
    """The endpoints, on the runs that are served.

    What is public here is also for the routes that `create_app` takes as `more_routes`.

    runs       the served runs by name
    limits     of a request
    access     who may use the server
    side_work  threads for work on texts, of which each client has a few
    """

    def __init__(
        self,
        runs: Runs,
        limits: Limits,
        metrics: Metrics,
        access: Access,
        *,
        ignore_unknown: bool,
        chat: bool,
    ) -> None:
        self.runs, self.limits, self.access = runs, limits, access
        self.side_work = SideWork()
        self._metrics, self._ignore_unknown, self._chat = metrics, ignore_unknown, chat
        self._texts = Counter[str]()  # generated or waiting, of each client
        self._scoring = asyncio.Semaphore(_SCORES_AT_ONCE)
        self._streams: set[Exchange] = set()

    def routes(self) -> list[BaseRoute]:
        """The routes of the API."""
        closed: list[tuple[str, str, Answer]] = [
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{id:path}", self.model),
            ("POST", "/v1/completions", self.completions),
            ("POST", "/v1/chat/completions", self.chat),
            ("POST", "/next_tokens", self.next_tokens),
            ("POST", "/tokenize", self.tokenize),
            ("POST", "/detokenize", self.detokenize),
            ("GET", "/tokenizer_info", self.tokenizer_info),
            ("GET", "/metrics", self.metrics_page),
        ]
        return [
            *(self.route(method, path, answer) for method, path, answer in closed),
            Route("/openapi.json", Endpoint(self.openapi), methods=["GET"]),
            Route("/health", Endpoint(self.health), methods=["GET"]),
            Route("/ready", Endpoint(self.ready), methods=["GET"]),
        ]

    def route(self, method: str, path: str, answer: Answer) -> BaseRoute:
        """A route behind the API keys. `answer` may raise ApiError."""
        return Route(path, Endpoint(answer, self.access.client), methods=[method])

    async def models(self, exchange: Exchange) -> None:
        """GET /v1/models."""
        cards = {run.name: run.card() for run in self.runs}
        others = {"object": "model", "created": 0, "owned_by": "textgen"}
        data = [cards.get(name, {"id": name, **others}) for name in await self.runs.names()]
        await exchange.json({"object": "list", "data": data})

    async def model(self, exchange: Exchange) -> None:
        """GET /v1/models/{id}."""
        run = await self.runs.find(exchange.params["id"])
        await self.side_work.answer(exchange, lambda _: run.full_card(self.runs.options))

    async def completions(self, exchange: Exchange) -> None:
        """POST /v1/completions."""
        await self._complete(exchange, is_chat=False)

    async def chat(self, exchange: Exchange) -> None:
        """POST /v1/chat/completions: refused unless it is asked for, since a base model knows no
        roles.
        """
        if not self._chat:
            message = (
                "these models continue a text and know no chat; use POST /v1/completions with a "
                "prompt, or start the server with --chat"
            )
            raise ApiError(400, message, code="no_chat")
        await self._complete(exchange, is_chat=True)

    async def _complete(self, exchange: Exchange, *, is_chat: bool) -> None:
        run, asked = await self._asked(exchange, is_chat=is_chat)
        job = Job(run, asked, self.limits, self._scoring, is_chat=is_chat)
        with self.admitted(exchange, run, asked.rows, self._lanes(run, asked)):
            work = self._streamed(exchange, job) if asked.stream else _whole(exchange, job)
            try:
                await exchange.while_connected(work)
            finally:
                self._metrics.prompt_tokens.labels(run.name).inc(job.prompt_tokens)
                self._metrics.new_tokens.labels(run.name).inc(job.completion_tokens)

    async def next_tokens(self, exchange: Exchange) -> None:
        """POST /next_tokens, ours: the likeliest next tokens before and after the samplers,
        `logprobs` of each.

        Takes the parameters of /v1/completions, with one prompt. They follow the prompt, or the
        first `max_tokens` tokens of the text that it gets with `seed` and `index`: what the
        samplers do depends on them.
        """
        run, asked = await self._asked(exchange, max_new_tokens=0)
        if len(asked.prompts) > 1:
            raise ApiError(400, "expected one prompt", param="prompt")

        async def answer() -> None:
            count, most = asked.logprobs or _LIKELIEST_TOKENS, self.limits.prompt_tokens
            await exchange.json(await next_tokens(run.generator, asked, count, most))

        with self.admitted(exchange, run, 1, self._lanes(run, asked)):
            await exchange.while_connected(answer())

    async def tokenize(self, exchange: Exchange) -> None:
        """POST /tokenize, in vLLM's shape.

        Characters outside the vocabulary become the unknown token.
        """
        run, text, body = await self.read_field(exchange, "prompt", str)
        with_texts = body.get(name := "return_token_strs")
        if not isinstance(with_texts, bool | None):
            raise ApiError(400, f"{name} must be true or false", param=name)
        with self.admitted(exchange, run, 1):
            await self.side_work.answer(
                exchange, lambda _: tokenized(run.generator, text, self.limits, bool(with_texts))
            )

    async def detokenize(self, exchange: Exchange) -> None:
        """POST /detokenize, in vLLM's shape."""
        run, ids, _ = await self.read_field(exchange, "tokens", list)
        with self.admitted(exchange, run, 1):
            await self.side_work.answer(exchange, lambda _: detokenized(run.generator, ids))

    async def tokenizer_info(self, exchange: Exchange) -> None:
        """GET /tokenizer_info: the end of a document has a name by which /tokenize knows it, or is
        null.
        """
        generator = (await self.runs.find(None)).generator
        kind = generator.tables.get("tokenizer", {}).get("type")
        end = None if end_id(generator) is None else END
        await exchange.json({"tokenizer_class": kind, "bos_token": None, "eos_token": end})

    async def openapi(self, exchange: Exchange) -> None:
        """GET /openapi.json: the options of samplers are parameters of a request."""
        document = json.loads(_OPENAPI.read_bytes())
        document["components"]["schemas"]["Request"]["properties"] |= {
            name: {"description": each.help} for name, each in self.runs.options.items()
        }
        await exchange.json(document)

    async def health(self, exchange: Exchange) -> None:
        """GET /health: the server answers."""
        await exchange.json({"status": "ok"})

    async def ready(self, exchange: Exchange) -> None:
        """GET /ready: another text would be taken."""
        if self._texts.total() >= self.limits.texts:
            raise ApiError(503, "too many requests are waiting")
        await exchange.json({"status": "ready"})

    async def metrics_page(self, exchange: Exchange) -> None:
        """GET /metrics."""
        await exchange.whole(self._metrics.page(), 200, [_METRICS])

    async def ping(self) -> None:
        """Write a comment to streams that wait for long, so that no proxy takes them for dead,
        until cancelled.
        """
        while True:
            await asyncio.sleep(_PING)
            for exchange in [*self._streams]:
                if time.monotonic() - exchange.written > _PING:
                    await exchange.write(b": ping\n\n")

    async def read_field(
        self, exchange: Exchange, name: str, kind: type[Sized]
    ) -> tuple[ServedRun, Any, dict[str, Any]]:
        """The run, a text or ids, and the body that has them. Raises ApiError, ClientGone."""
        body = await exchange.body(self.limits)
        value, most = body.get(name), self.limits.prompt_tokens
        if not isinstance(value, kind) or len(value) > most:
            expected = "a string of {:,} characters" if kind is str else "a list of {:,} token ids"
            raise ApiError(400, f"{name} must be {expected.format(most)} at most", param=name)
        return await self.find_run(exchange, body), value, body

    async def find_run(self, exchange: Exchange, body: Mapping[str, Any]) -> ServedRun:
        """The run that a body asks for, which metrics name. Raises ApiError."""
        run = await self.runs.find(body.get("model"))
        exchange.scope[MODEL] = run.name
        return run

    async def _asked(
        self, exchange: Exchange, *, is_chat: bool = False, **defaults: Any
    ) -> tuple[ServedRun, Completion]:
        """The run and the request in a body; a header of the answer names parameters that are
        ignored.

        `defaults` are in place of the run's.
        """
        body = await exchange.body(self.limits)
        if is_chat:
            body = as_completion(body)
        run = await self.find_run(exchange, body)
        asked = read_completion(
            body,
            self.runs.parameters,
            self.limits,
            {**run.generator.defaults, **defaults},
            ignore_unknown=self._ignore_unknown,
        )
        salt = asked.options.get("cache_salt", "")
        if isinstance(salt, str):  # users of different keys share no states of prompts
            asked.options["cache_salt"] = f"{exchange.client}\n{salt}"
        if asked.ignored:
            names = ", ".join(asked.ignored).encode("unicode_escape")
            exchange.headers.append((b"x-ignored-parameters", names[:_HEADER]))
        return run, asked

    def _lanes(self, run: ServedRun, asked: Completion) -> int:
        """The lanes of each text of a request. Raises ApiError."""
        try:
            return self.runs.lanes(run, asked.options)
        except TextgenError as error:
            raise refusal(error) from error

    @contextlib.contextmanager
    def admitted(
        self, exchange: Exchange, run: ServedRun, texts: int, lanes: int = 1
    ) -> Iterator[None]:
        """Count texts, each as often as it has lanes, while they are generated or wait. Raises
        ApiError where too many do.

        One key of several has half of the capacity that the others leave. A request with more lanes
        than a key may have takes all of them.
        """
        share = 2 if len(self.access.keys) > 1 else 1
        client, own = exchange.client, self._texts[exchange.client]
        if texts > (most := -(-self.limits.texts // share)):
            raise ApiError(400, f"a client has at most {most} texts at one time")
        texts = min(texts * lanes, most)
        if own + texts > -(-(self.limits.texts - self._texts.total() + own) // share):
            raise ApiError(429, "too many requests are waiting; try again later")
        self._texts[client] += texts
        self._metrics.texts.labels(run.name).inc(texts)
        try:
            yield
        except ClientGone:
            self._metrics.left.labels(run.name).inc()
            raise
        finally:
            self._texts[client] -= texts
            self._metrics.texts.labels(run.name).dec(texts)

    async def _streamed(self, exchange: Exchange, job: Job) -> None:
        begun, is_first, last = time.perf_counter(), True, b""
        await job.prepare()
        streams = await job.open()
        await exchange.start(200, _STREAM)
        self._streams.add(exchange)
        try:
            async with contextlib.aclosing(job.events(streams)) as events:
                async for event in events:
                    if is_first:
                        is_first = False
                        taken = time.perf_counter() - begun
                        self._metrics.first_token.labels(job.model).observe(taken)
                    if job.is_made:  # what is left comes at once
                        last += event
                    else:
                        await exchange.write(event)
        finally:
            self._streams.discard(exchange)
        await exchange.write(last + b"data: [DONE]\n\n", more=False)


async def _whole(exchange: Exchange, job: Job) -> None:
    await job.prepare()
    await exchange.whole(await job.answer(), 200, [JSON])


def create_app(
    runs: Mapping[str, str | Path],
    *,
    plugins: PluginSet | None = None,
    device: str = "auto",
    limits: Limits | None = None,
    access: Access | None = None,
    ignore_unknown: bool = False,
    chat: bool = False,
    routes: Sequence[str | Mapping[str, Any]] = (),
    more_runs: Callable[[], Mapping[str, Path]] = dict,
    more_routes: Callable[[Server], Sequence[BaseRoute]] = lambda _: (),
) -> ASGIApp:
    """The application for runs by name. Another application can mount it.

    routes       types of plugins' routes, or tables with their options; those that need no options
                 are there in any case
    more_runs    finds further runs, which are loaded when they are asked for
    more_routes  makes further routes, which come after those of the API

    Loads the runs, and raises what `textgen.load` raises.
    """
    paths, access = {name: Path(run) for name, run in runs.items()}, access or Access()
    metrics = Metrics()
    plugins, limits = plugins or PluginSet.discover(), limits or Limits()
    loaded = Runs(paths, plugins, metrics, device, more_runs)
    server = Server(
        loaded,
        limits,
        metrics,
        access,
        ignore_unknown=ignore_unknown,
        chat=chat,
    )

    background = Background([loaded.watch, server.ping])

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        background.start()
        try:
            yield
        finally:
            background.stop()

    app = Starlette(
        routes=[
            *offered_routes(plugins, routes, access, loaded),  # which may replace those below
            *server.routes(),
            *more_routes(server),
        ],
        lifespan=lifespan,
        exception_handlers={404: _failed, 405: _failed, ApiError: _refused, Exception: _crashed},
    )
    return Guard(app, access, metrics, background)


async def _failed(_: Request, error: Any) -> Response:
    refusal = ApiError(error.status_code, str(error.detail))
    return JSONResponse(refusal.body(), error.status_code, dict(error.headers or {}))


async def _refused(_: Request, error: Any) -> Response:
    """The answer to a request that a plugin's route refuses, or for a run that is not there."""
    return JSONResponse(error.body(), error.status)


async def _crashed(_: Request, __: Exception) -> Response:
    return JSONResponse(ApiError(500, "the server failed; its log has more").body(), 500)
