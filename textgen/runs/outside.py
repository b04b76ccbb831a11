"""Says, before it is done, what a pipeline reads and writes outside its folder: it may be a
stranger's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from textgen.files.cache import cache_directory
from textgen.messages import visible
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import Address
from textgen.plugin.config_reader import ConfiguredComponent, Run
from textgen.protocols import Corpus


def announce(
    what: str, places: Iterable[Path | Address], known: Iterable[Path], console: TextIO | None
) -> None:
    """Name each place that is in no known folder, nor in one that was named, before the next is
    asked for.
    """
    if console is None:
        return
    roots = [os.path.realpath(each) for each in known]
    for place in places:
        if isinstance(place, Path):
            path = os.path.realpath(place)
            if any(map(Path(path).is_relative_to, roots)):
                continue
            roots.append(path)
            place = Path(path)
        console.write(visible(f"{what} {place}\n"))


def announce_sources(pipeline: Pipeline, corpus: Corpus, console: TextIO | None) -> None:
    """Name the addresses, files and runs that a pipeline reads, and the files that its corpus finds
    elsewhere by links.
    """
    known = [pipeline.folder, cache_directory()]
    announce("reading", _read_places(pipeline, corpus), known, console)


def _read_places(pipeline: Pipeline, corpus: Corpus) -> Iterator[Path | Address]:
    for part in pipeline.choices():
        yield from _sources(part)
        if part.start is not None and Path(part.start.name).is_absolute():  # offered by none
            yield part.start.path
    if hasattr(corpus, "sources") and pipeline.corpus.offer.component.options():
        yield from corpus.sources()


def _sources(choice: ConfiguredComponent) -> Iterator[Path | Address]:
    """The paths, addresses and runs at paths among the options of a component."""
    for name in choice.offer.component.options():
        value = getattr(choice.options, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Path | Address):
                yield each
            elif isinstance(each, Run) and not each.offer:
                yield Path(each.name)
