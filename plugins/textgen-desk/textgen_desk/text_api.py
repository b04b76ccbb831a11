"""The endpoints that tell about a text: what of it is in the training corpus, and what is worn."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

from starlette.routing import BaseRoute

from textgen import PluginSet
from textgen_desk.copies import copied_passages
from textgen_desk.worn import CorpusWords, WiderModels, listed, worn_passages
from textgen_serve.app import Server
from textgen_serve.errors import ApiError
from textgen_serve.exchange import Exchange
from textgen_serve.side_work import IsGone


class TextApi:
    """Answers about a text, which are found in the server's threads for such work."""

    def __init__(self, server: Server, plugins: PluginSet) -> None:
        self._server, self._words = server, CorpusWords()
        self._wider = WiderModels(server.runs, [offer.name for offer in plugins.offers("run")])

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        return [
            self._server.route("POST", "/copies", self.copies),
            self._server.route("POST", "/worn", self.worn),
            self._server.route("POST", "/words", self.words),
        ]

    async def copies(self, exchange: Exchange) -> None:
        """POST /copies: where a text has passages of 16 tokens and more that the training corpus
        has, too.
        """
        server = self._server
        run, text, _ = await server.read_field(exchange, "prompt", str)
        with server.admitted(exchange, run, 1):
            await server.side_work.answer(exchange, lambda _: copied_passages(run.generator, text))

    async def worn(self, exchange: Exchange) -> None:
        """POST /worn: where a text has phrases that a model which has read more finds too
        likely.
        """
        server = self._server
        run, text, _ = await server.read_field(exchange, "prompt", str)
        wider = await self._wider.of(run.generator)

        def found(is_gone: IsGone) -> dict[str, Any]:
            return worn_passages(self._words.of(run.generator), wider, text, is_gone)

        with server.admitted(exchange, run, 1):
            await server.side_work.answer(exchange, found)

    async def words(self, exchange: Exchange) -> None:
        """POST /words: how often which word is in the training corpus; none where that is not what
        it was.
        """
        server = self._server
        run = await server.find_run(exchange, await exchange.body(server.limits))

        def found(_: IsGone) -> dict[str, Any]:
            with contextlib.suppress(ApiError):
                return listed(self._words.of(run.generator))
            return listed(Counter())

        await server.side_work.answer(exchange, found)
