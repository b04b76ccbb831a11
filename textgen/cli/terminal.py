"""The standard streams of the command: UTF-8, safe on a terminal, and a stderr whose loss is
nobody's error.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from textgen import operating_system
from textgen.messages import visible


def prepare() -> None:
    """Replace stdout and stderr by streams that write UTF-8 and keep control characters from a
    terminal.

    Into a file or another program stdout is exact, for a text is data. A stream that was closed
    before the process began loses what is written to it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    sys.stderr = _prepared(sys.stderr, is_exact=False, may_be_lost=True)
    sys.stdout = _prepared(sys.stdout, is_exact=not sys.stdout.isatty())


def print_text(text: str) -> None:
    """Write a text to stdout as it is; click.echo takes colours out of it where that is a file."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _prepared(stream: TextIO, *, is_exact: bool, may_be_lost: bool = False) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # prepared already, or a program's own
        return stream
    return _Stream(stream, is_exact=is_exact, may_be_lost=may_be_lost)


class _Stream(io.TextIOWrapper):
    """A standard stream, in place of the one that it is made of.

    is_exact      a text is written as it is; else its control characters are written as escapes,
                  such as \\x1b
    may_be_lost   a text that cannot be written is dropped: no training ends because the disk of its
                  log is full
    """

    buffer = None  # type: ignore[assignment]  # click would write to a console of Windows through it

    def __init__(self, stream: io.TextIOWrapper, *, is_exact: bool, may_be_lost: bool) -> None:
        line_buffering = stream.line_buffering  # asked first: a detached stream tells nothing
        super().__init__(stream.detach(), "utf-8", "replace", "\n", line_buffering)
        self._is_exact, self._may_be_lost = is_exact, may_be_lost

    def write(self, text: str | bytes) -> int:
        if isinstance(text, bytes):  # click's completion writes them
            text = text.decode("utf-8", "replace")
        is_bar = self._may_be_lost and text.startswith("\r")  # of progress, with numbers alone
        with self._failing():
            super().write(text if self._is_exact or is_bar else visible(text))
        return len(text)

    def seekable(self) -> bool:
        return False  # click's wrapper would ask for the position, and fail where the disk is full

    def flush(self) -> None:
        with self._failing():
            super().flush()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it was closed
            if self._may_be_lost:
                return
            is_lost = isinstance(error, OSError) and error.errno == errno.EINVAL
            if operating_system.WINDOWS and is_lost:
                raise BrokenPipeError(errno.EPIPE, "nobody reads stdout") from error
            raise
