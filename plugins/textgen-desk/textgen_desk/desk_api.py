"""The endpoints of the desk, for its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
from starlette.routing import BaseRoute

from textgen import UsageError
from textgen_desk.desk import Desk
from textgen_desk.desk_work import done
from textgen_desk.uploads import received, spooled
from textgen_serve.app import Answer, Server
from textgen_serve.errors import ApiError
from textgen_serve.exchange import Exchange

_TEXT_BYTES: Final = 1 << 29  # bytes of a text
_MINUTES: Final = 100_000


@attrs.frozen
class DeskApi:
    """Answers of a desk: what it says in the folder is done in a thread."""

    server: Server
    desk: Desk

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        offered: list[tuple[str, str, Answer]] = [
            ("GET", "/desk/runs", self.all),
            ("POST", "/desk/runs", self.create),
            ("GET", "/desk/runs/{name}", self.one),
            ("PUT", "/desk/runs/{name}/text/{file}", self.add),
            ("POST", "/desk/runs/{name}/{action}", self.act),
            ("POST", "/desk/bin/{name}", self.restore),
        ]
        return [self.server.route(method, path, answer) for method, path, answer in offered]

    async def all(self, exchange: Exchange) -> None:
        """GET /desk/runs."""

        def found() -> dict[str, Any]:
            desk = self.desk
            there = {"folder": desk.folder.name, "trains": desk.trains, "removed": desk.removed()}
            return there | {"runs": desk.states()}

        await exchange.json(await self._done(found))

    async def one(self, exchange: Exchange) -> None:
        """GET /desk/runs/{name}: with losses, samples and the log."""
        name = exchange.params["name"]
        await exchange.json(await self._done(lambda: self.desk.state(name, is_whole=True)))

    async def create(self, exchange: Exchange) -> None:
        """POST /desk/runs: a folder for texts, which may have another name."""
        self._check_trains()
        name = (await exchange.body(self.server.limits)).get("name")
        if not isinstance(name, str):
            raise ApiError(400, "name must be a string", param="name")
        await exchange.json({"name": await self._done(self.desk.create, name)})

    async def add(self, exchange: Exchange) -> None:
        """PUT /desk/runs/{name}/text/{file}: the bytes of a text."""
        self._check_trains()
        with spooled() as content:
            size = await received(exchange, content.write, _TEXT_BYTES)
            content.seek(0)
            name, file = exchange.params["name"], exchange.params["file"]
            await self._done(self.desk.add, name, file, content)
        await exchange.json({"bytes": size})

    async def act(self, exchange: Exchange) -> None:
        """POST /desk/runs/{name}/{action}: the state after it."""
        name, action = exchange.params["name"], exchange.params["action"]
        given = await exchange.body(self.server.limits)
        desk = self.desk
        actions: dict[str, Callable[[], None]] = {
            "look": lambda: desk.look(name, _minutes(given), _text(given, "encoding")),
            "train": lambda: desk.train(name, _minutes(given), _text(given, "start")),
            "resume": lambda: desk.resume(name),
            "extend": lambda: desk.extend(name, _minutes(given)),
            "update": lambda: desk.resume(name, "--update"),
            "stop": lambda: desk.stop(name),
            "rename": lambda: desk.rename(name, _text(given, "name")),
            "remove": lambda: desk.remove(name),
        }
        if action not in actions:
            raise ApiError(404, f"no action is called {action!r}; there are {', '.join(actions)}")
        self._check_trains()
        await self._done(actions[action])
        if action in ("rename", "remove"):
            self.server.runs.close(name)
        await exchange.json({})

    async def restore(self, exchange: Exchange) -> None:
        """POST /desk/bin/{name}: take a run out of the bin, or a document of `run`."""
        run = _text(await exchange.body(self.server.limits), "run")
        if not run:
            self._check_trains()
        await self._done(self.desk.restore, exchange.params["name"], run)
        await exchange.json({})

    def _check_trains(self) -> None:
        if not self.desk.trains:
            cause = "this server takes no texts to train on, and changes no runs"
            raise ApiError(403, cause, code="no_training")

    async def _done(self, function: Callable[..., Any], *given: Any) -> Any:
        return await done(self.desk.folder, function, *given)


def _minutes(given: dict[str, Any]) -> float:
    value: Any = given.get("minutes")
    if type(value) not in (int, float) or not 0.05 <= value <= _MINUTES:
        raise UsageError(f"minutes must be a number from 0.05 to {_MINUTES:,}")
    return float(value)


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a string")
    return value
