"""Texts on a shelf: a corpus that says when it is read, and runs of it."""

import os
from collections.abc import Callable
from pathlib import Path

import attrs
from components import engine_of
from small_run import TEXT, tables

import textgen
from textgen.documents import DOCUMENT_END

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

    def sources(self):
        return [self.config.path]

    def read(self):
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

    def write(self, text=TEXT, name="text.txt"):
        path = self.folder / name
        path.write_text(text)
        os.utime(path, (LONG_AGO, LONG_AGO))
        return path

    def run(
        self,
        path,
        output="",
        cancelled=lambda: False,
        documents=False,
        **changes,
    ):
        """Train an n-gram model: its weights follow from the tokens alone."""
        self._runs += 1
        pipeline = {
            **tables(self.folder),
            "observer": [],
            "corpus": {"type": "watched", "path": str(path), "documents": documents},
            "model": {"type": "ngram", "order": 2},
            "trainer": {"type": "count"},
            **changes,
        }
        watched = textgen.Component(
            "watched", WatchedConfig, lambda config, _: WatchedText(config, self.count)
        )
        return engine_of(corpus=[watched]).run(
            pipeline,
            output=self.folder / (output or f"run-{self._runs}"),
            cancelled=cancelled,
        )

    def count(self):
        self.reads += 1
        self.reading()
