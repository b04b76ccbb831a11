"""The standard streams of the command: UTF-8, safe on a terminal, and a stderr whose loss is
nobody's error.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

import click

from textgen import windows
from textgen.errors import TextgenError
from textgen.messages import visible


def prepare() -> None:
    """Replace stdout and stderr by streams that write UTF-8 and keep control characters from a
    terminal.

    Into a file or another program stdout is exact, for a text is data.

    Raises TextgenError where stdout was closed before the process began: a file might come to stand
    in its place.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    sys.stderr = _prepared(sys.stderr, is_exact=False, may_be_lost=True)
    if sys.stdout is None:
        raise TextgenError(
            "stdout is closed, so there is nowhere to write to; to write nothing: > /dev/null"
        )
    sys.stdout = _prepared(sys.stdout, is_exact=not sys.stdout.isatty())


def print_text(text: str) -> None:
    """Write a text to stdout as it is; click.echo takes colours out of it where that is a file."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_stream(pieces: Iterable[str]) -> None:
    """Write a text to stdout as it comes."""
    for piece in pieces:
        print_text(piece)
    print_text("\n")


def report_seed(arguments: Mapping[str, Any], seed: int) -> None:
    """Say on stderr which seed was drawn, where one was."""
    if arguments.get("seed") == "random":
        click.echo(f"seed {seed}", err=True)


def _prepared(stream: TextIO, *, is_exact: bool, may_be_lost: bool = False) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # prepared already, or a program's own
        return stream
    stream.reconfigure(encoding="utf-8", errors="replace", newline="\n")
    return _Stream(stream, is_exact=is_exact, may_be_lost=may_be_lost)  # type: ignore[return-value]


class _Stream(io.TextIOBase):
    """A standard stream. It has no `buffer`, through which click writes to a console of Windows.

    is_exact      a text is written as it is; else its control characters are written as escapes,
                  such as \\x1b
    may_be_lost   a text that cannot be written is dropped: no training ends because the disk of its
                  log is full
    """

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, stream: io.TextIOWrapper, *, is_exact: bool, may_be_lost: bool) -> None:
        self._stream, self._is_exact, self._may_be_lost = stream, is_exact, may_be_lost

    def write(self, text: str) -> int:
        shown = _visible if self._may_be_lost else visible  # a bar is on stderr
        with self._failing():
            self._stream.write(text if self._is_exact else shown(text))
        return len(text)

    def flush(self) -> None:
        with self._failing():
            self._stream.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it was closed
            if self._may_be_lost:
                return
            if windows.WINDOWS and isinstance(error, OSError) and error.errno == errno.EINVAL:
                raise BrokenPipeError(errno.EPIPE, "nobody reads stdout") from error
            raise


def _visible(text: str) -> str:
    """The text with control characters as escapes, but for a bar's returns to the beginning of its
    line.
    """
    begins, ends = text.startswith("\r"), len(text) > 1 and text.endswith("\r")
    return "\r" * begins + visible(text[begins : len(text) - ends]) + "\r" * ends
