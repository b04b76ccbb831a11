"""Routes that plugins add to the server.

A plugin offers a component of the kind `route`, whose `build` returns a route of Starlette, or
`Public` with one. A handler gets the served runs by `served_runs`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from starlette.datastructures import URLPath
from starlette.requests import ClientDisconnect, Request
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from textgen import (
    BuildContext,
    ContractError,
    Engine,
    Fault,
    PluginSet,
    RegisteredComponent,
    TextgenError,
    UsageError,
)
from textgen_serve.errors import ApiError, logger
from textgen_serve.exchange import Exchange
from textgen_serve.guard import Access
from textgen_serve.models import Runs

KIND: Final = "route"
_RUNS: Final = "textgen.runs"


@attrs.frozen
class Public:
    """A route that needs no API key, where others of a server do."""

    route: BaseRoute


def served_runs(request: Request) -> Runs:
    """The runs of the server that a route of a plugin belongs to.

    `(await served_runs(request).find(name)).generator` is the generator of a run, as it is on disk
    now; of the only run if the name is None.
    """
    runs: Runs = request.scope[_RUNS]
    return runs


def offered_routes(
    plugins: PluginSet, tables: Sequence[str | Mapping[str, Any]], access: Access, runs: Runs
) -> Iterator[BaseRoute]:
    """The routes that plugins offer, those of `tables` first.

    tables  types of routes, or tables with their options

    A route that needs options and is not in `tables` is left out, with a warning. Raises UsageError
    or PipelineError for a wrong table, ContractError for a fault of the plugin.
    """
    engine = Engine(plugins)
    named = dict[RegisteredComponent, Mapping[str, Any]]()
    for given in tables:
        table = {"type": given} if isinstance(given, str) else given
        found = plugins.find(KIND, str(table.get("type", "")))
        if isinstance(found, Fault):
            raise UsageError(str(found), argument="route")
        named[found] = table
    for component, table in named.items():
        yield _build(engine, component, table, access, runs)
    for component in plugins.offers(KIND):
        if component not in named:
            try:
                yield _build(engine, component, {}, access, runs)
            except TextgenError as error:
                hint = f"--route '{{ type = \"{component.name}\", … }}' gives its options"
                logger.warning("%s is left out: %s; %s", component, error, hint)


def _build(
    engine: Engine,
    component: RegisteredComponent,
    table: Mapping[str, Any],
    access: Access,
    runs: Runs,
) -> BaseRoute:
    """The route of a component. Raises TextgenError."""
    context = BuildContext(folder=Path.cwd())
    made = engine.build(KIND, {**table, "type": component.qualified_name}, context)
    is_public = isinstance(made, Public)
    route = made.route if isinstance(made, Public) else made
    if not isinstance(route, BaseRoute):
        cause = f"gave {type(route).__name__} from build, and must give a route of Starlette"
        raise ContractError(component, cause)
    return _OfferedRoute(route, component, engine, None if is_public else access, runs)


@attrs.frozen(eq=False)
class _OfferedRoute(BaseRoute):
    """A route of a plugin: behind the API keys, with the runs, and blamed for what fails in it.

    access  None for a public route
    """

    route: BaseRoute
    component: RegisteredComponent
    engine: Engine
    access: Access | None
    runs: Runs

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """What Starlette asks of a route."""
        return self.route.matches(scope)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """What Starlette asks of a route."""
        return self.route.url_path_for(name, **path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. What the plugin's code raises becomes an answer, too."""
        has_started = False

        async def watched(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            if self.access is not None:
                self.access.client(scope)
            scope[_RUNS] = self.runs
            with (
                self.engine.blaming(KIND, self.component.qualified_name),
                contextlib.suppress(ClientDisconnect),
            ):
                await self.route.handle(scope, receive, watched)
        except (ApiError, TextgenError) as error:
            if has_started:
                raise
            await Exchange(scope, receive, send).fail(_refusal(error))


def _refusal(error: ApiError | TextgenError) -> ApiError:
    """The answer for an error; one of a plugin is in the log, with its traceback."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContractError):
        logger.error("%s", error, exc_info=error.__cause__)
        return ApiError(500, "a plugin of the server failed; its log has more")
    return ApiError.of(error, {})
