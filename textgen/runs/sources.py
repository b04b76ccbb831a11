"""What a pipeline's corpus reads, which may be a stranger's choice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from textgen.errors import CorpusError
from textgen.files.opening import special
from textgen.pipeline.structure import Choice
from textgen.plugin.component import Address
from textgen.visible import visible


def check_sources(corpus: Choice, folder: Path, console: TextIO | None = None) -> None:
    """Say on the console what is going to be read that is not in the pipeline's `folder`: files, and addresses.

    Raises CorpusError for a pipe or a device.
    """
    for source in _sources(corpus):
        if isinstance(source, Path):
            if kind := special(source):
                raise CorpusError(f"it is {kind}, and a corpus is read from files", source)
            if Path(os.path.realpath(source)).is_relative_to(os.path.realpath(folder)):
                continue
        if console is not None:
            console.write(visible(f"reading {source}\n"))


def reads_files(corpus: Choice) -> bool:
    """Whether a corpus has the path of a file among its options."""
    return any(isinstance(source, Path) for source in _sources(corpus))


def _sources(corpus: Choice) -> Iterator[Path | Address]:
    """The paths and addresses among the options of a corpus."""
    for name in corpus.offer.component.options():
        value = getattr(corpus.options, name)
        yield from (
            each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, Path | Address)
        )
