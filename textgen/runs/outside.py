"""Names what a pipeline reads, writes and fetches elsewhere, before: it may be a stranger's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import attrs

from textgen.contracts.components import Components
from textgen.errors import PipelineError, TextgenError
from textgen.files.cache import cache_directory
from textgen.messages import visible
from textgen.pipeline.pipeline import CHOICES, Pipeline
from textgen.plugin.component import Address, RemoteName
from textgen.plugin.configured import ConfiguredComponent, RunOption
from textgen.protocols import Corpus
from textgen.runs.directory import RunDirectory


def announce(
    what: str, sources: Iterable[Path | Address], known: Iterable[Path], console: TextIO | None
) -> None:
    """Name each source that is in no known folder, nor in one that was named, before the next is
    asked for.
    """
    if console is None:
        return
    roots = [os.path.realpath(each) for each in known]
    for source in sources:
        if isinstance(source, Path):
            path = os.path.realpath(source)
            if any(map(Path(path).is_relative_to, roots)):
                continue
            roots.append(path)
            source = Path(path)
        console.write(visible(f"{what} {source}\n"))


def fetched(pipeline: Pipeline, console: TextIO | None, *, overwrite: bool) -> Pipeline:
    """A pipeline whose options that name something on a network (see RemoteName) are fetched. Each
    keeps the version of the run that is there already, unless that is to be overwritten.

    Raises PipelineError.
    """
    before: Mapping[str, Any] = {}
    directory = RunDirectory(pipeline.output).latest()
    if directory.exists() and not overwrite:
        with contextlib.suppress(TextgenError):  # what is wrong is said when the run is read
            before = directory.read_pipeline().tables
    fetcher = Fetcher(console)
    made: dict[str, Any] = {
        kind: fetcher.choice(getattr(pipeline, kind), before.get(kind), kind) for kind in CHOICES
    }
    return attrs.evolve(pipeline, **made)


@attrs.frozen
class Fetcher:
    """Fetches what options name on a network, each thing once, when its address has been written to
    the console.
    """

    console: TextIO | None
    _found: dict[tuple[str, str], RemoteName] = attrs.field(factory=dict, init=False)

    def choice(
        self, choice: ConfiguredComponent, before: Any = None, prefix: str = ""
    ) -> ConfiguredComponent:
        """A component whose options, and those of its parts, are fetched.

        before  its table in the pipeline of the run that is there already
        prefix  its dotted key in the pipeline

        Raises PipelineError.
        """
        known = before if isinstance(before, Mapping) else {}
        changes: dict[str, Any] = {}
        for name in choice.offer.component.options():
            value, key = getattr(choice.options, name), f"{prefix}.{name}"
            made = value
            if isinstance(value, ConfiguredComponent):
                made = self.choice(value, known.get(name), key)
            elif isinstance(value, RemoteName):
                try:
                    with Components().blaming(choice.offer, "cannot be fetched"):
                        made = self._fetched(value, known.get(name))
                except PipelineError as error:
                    raise PipelineError([fault.below(key) for fault in error.faults]) from error
            if made is not value:
                changes[name] = made
        if not changes:
            return choice
        return attrs.evolve(choice, options=attrs.evolve(choice.options, **changes))

    def _fetched(self, name: RemoteName, before: Any) -> RemoteName:
        address = name.address
        key = address, repr(before)
        if key not in self._found:
            announce("reading", [address], [], self.console)
            self._found[key] = name.fetched(before)
        return self._found[key]


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
            elif isinstance(each, RunOption) and not each.offer:
                yield Path(each.name)
