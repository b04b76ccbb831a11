"""The standard streams of the command: UTF-8, and a stderr whose loss is nobody's error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from textgen.errors import TextgenError


def prepare() -> None:
    """UTF-8 out, whatever the platform's default; what a terminal cannot show is replaced, never an error.

    Raises TextgenError where stdout was closed before the process began: a file might come to stand in its place.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    if isinstance(sys.stderr, io.TextIOWrapper):
        lasting = io.BufferedWriter(_Lasting(sys.stderr))
        sys.stderr = io.TextIOWrapper(lasting, encoding="utf-8", errors="replace", line_buffering=True)
    if sys.stdout is None:
        raise TextgenError("stdout is closed, so there is nowhere to write to; to write nothing: > /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")


def print_stream(pieces: Iterable[str]) -> None:
    """Write a text to stdout as it comes."""
    for piece in pieces:
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo()


def report_seed(arguments: Mapping[str, Any], seed: int) -> None:
    """Say on stderr which seed was drawn, where one was."""
    if arguments.get("seed") == "random":
        click.echo(f"seed {seed}", err=True)


class _Lasting(io.RawIOBase):
    """Writes where stderr leads, and nowhere once that has failed: its reader is gone, its terminal, or its disk full.

    Whatever is said there accompanies the work, and hours of training are not lost to it.
    """

    name: Final = "<stderr>"

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream  # which closes what is under it once nobody has it any more
        self._raw: Any = getattr(stream.buffer, "raw", stream.buffer)  # `python -u` has no buffer between
        self._is_lost = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self._is_lost:
            try:
                written: int | None = self._raw.write(data)
            except (OSError, ValueError):  # ValueError: it was closed
                self._is_lost = True
            else:
                if written is not None:  # None: it would have to wait, and nobody waits for a message
                    return written
        return len(data)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
