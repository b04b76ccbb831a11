"""Texts on a shelf: a corpus that says when it is read, and runs of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

import textgen
from textgen.documents import DOCUMENT_END

TEXT = "".join(
    f"Once {n} ravens flew over {n * n % 7} hills, and none came back.\n" for n in range(60)
)
LONG_AGO = 1_000_000_000


@attrs.frozen
class WatchedConfig:
    """A file, and what is told of each reading."""

    path: Path = textgen.option(help="a text")
    documents: bool = textgen.option(False, help="whether each line is one")


@attrs.define
class WatchedText:
    """A corpus of one file that calls `reading` whenever it is read."""

    config: WatchedConfig
    reading: Callable[[], None]

    def sources(self) -> list[Path]:
        return [self.config.path]

    def read(self) -> Iterator[Any]:
        self.reading()
        for line in self.config.path.read_text().splitlines(keepends=True):
            yield line
            if self.config.documents:
                yield DOCUMENT_END


@attrs.define
class Shelf:
    """Texts in a folder, runs of them, and how often a text was read."""

    folder: Path
    reads: int = 0
    reading: Callable[[], None] = lambda: None
    _runs: int = 0

    def write(self, text: str = TEXT, name: str = "text.txt") -> Path:
        path = self.folder / name
        path.write_text(text)
        os.utime(path, (LONG_AGO, LONG_AGO))
        return path

    def run(
        self,
        path: Path,
        output: str = "",
        observers: tuple[Any, ...] = (),
        cancelled: Callable[[], bool] = lambda: False,
        **changes: Any,
    ) -> textgen.Run:
        """Train an n-gram model: its weights follow from the tokens alone."""
        self._runs += 1
        tables = {
            "device": "cpu",
            "observer": [],
            "corpus": {
                "type": "watched",
                "path": str(path),
                "documents": changes.pop("documents", False),
            },
            "tokenizer": {"type": "char"},
            "data": {"window_length": 16},
            "model": {"type": "ngram", "order": 2},
            "trainer": {"type": "count"},
            "generate": {"max_new_tokens": 5},
        }
        tables |= changes
        output = output or f"run-{self._runs}"
        engine = textgen.Engine(self.plugins())
        return engine.run(
            tables, output=self.folder / output, observers=observers, cancelled=cancelled
        )

    def plugins(self) -> textgen.PluginSet:
        shelf = self

        class Plugin:
            @textgen.hookimpl
            def textgen_corpora(self) -> list[textgen.Component]:
                return [
                    textgen.Component(
                        "watched", WatchedConfig, lambda config, _: WatchedText(config, shelf.count)
                    )
                ]

        plugins = textgen.PluginSet.discover()
        plugins.register(Plugin(), "watching")
        return plugins

    def count(self) -> None:
        self.reads += 1
        self.reading()
