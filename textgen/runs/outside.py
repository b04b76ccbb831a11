"""Says, before it is done, what a pipeline reads and writes outside its folder: it may be a
stranger's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from textgen.errors import CorpusError
from textgen.files.cache import cache_directory
from textgen.files.opening import is_special
from textgen.messages import visible
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import Address
from textgen.plugin.config_reader import ConfiguredComponent, Run
from textgen.protocols import Corpus


def announce(
    what: str, places: Iterable[Path | Address], known: Iterable[Path], console: TextIO | None
) -> None:
    """Name the places that are in none of the known folders."""
    if console is None:
        return
    roots = [os.path.realpath(each) for each in known]
    for place in dict.fromkeys(places):
        if isinstance(place, Path):
            place = Path(os.path.realpath(place))
            if any(map(place.is_relative_to, roots)):
                continue
        console.write(visible(f"{what} {place}\n"))


def announce_sources(pipeline: Pipeline, console: TextIO | None) -> None:
    """Name the addresses, files and runs of a pipeline.

    Raises CorpusError for a pipe or a device.
    """
    check_regular(pipeline.corpus)
    runs = [
        start.path
        for part in pipeline.choices()
        if (start := part.start) and Path(start.name).is_absolute()  # offered by none
    ]
    found = [source for part in pipeline.choices() for source in _sources(part)]
    announce("reading", [*found, *runs], [pipeline.folder], console)


def announce_files(
    corpus: Corpus, choice: ConfiguredComponent, folder: Path, console: TextIO | None
) -> None:
    """Name the files that a corpus finds elsewhere than its options say, by links. Raises
    CorpusError.
    """
    if console is not None and hasattr(corpus, "sources") and choice.offer.component.options():
        paths = [source for source in _sources(choice) if isinstance(source, Path)]
        announce("reading", corpus.sources(), [folder, cache_directory(), *paths], console)


def check_regular(corpus: ConfiguredComponent) -> None:
    """Raise CorpusError for a pipe or a device among the options of a corpus."""
    for source in _sources(corpus):
        if isinstance(source, Path) and is_special(source):
            raise CorpusError("it is not a regular file, and a corpus is read from files", source)


def _sources(choice: ConfiguredComponent) -> Iterator[Path | Address]:
    """The paths, addresses and runs at paths among the options of a component."""
    for name in choice.offer.component.options():
        value = getattr(choice.options, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Path | Address):
                yield each
            elif isinstance(each, Run) and not each.offer:
                yield Path(each.name)
