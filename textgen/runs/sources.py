"""What a pipeline's corpus reads, which may be a stranger's choice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from textgen.errors import CorpusError
from textgen.opening import special
from textgen.pipeline.structure import Choice
from textgen.visible import visible


def check_sources(corpus: Choice, folder: Path, console: TextIO | None = None) -> None:
    """Say on the console which paths outside the pipeline's `folder` are going to be read.

    Raises CorpusError for a pipe or a device.
    """
    values = (getattr(corpus.options, name) for name in corpus.offer.component.options())
    for path in (value for value in values if isinstance(value, Path)):
        if kind := special(path):
            raise CorpusError(f"it is {kind}, and a corpus is read from files", path)
        if console is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            console.write(visible(f"reading {path}\n"))
