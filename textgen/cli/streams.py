"""The standard streams of the command: UTF-8, safe on a terminal, and a stderr whose loss is nobody's error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from textgen.errors import TextgenError
from textgen.visible import visible


def prepare() -> None:
    """UTF-8 out, whatever the platform's default; what a terminal cannot show is replaced, never an error.

    What would command a terminal is written out, as \\x1b, on stderr and on a terminal. Into a file or another program
    stdout is exact, for a text is data.

    Raises TextgenError where stdout was closed before the process began: a file might come to stand in its place.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    if isinstance(sys.stderr, io.TextIOWrapper):
        lasting = io.BufferedWriter(_Lasting(sys.stderr))
        sys.stderr = _Messages(lasting, encoding="utf-8", errors="replace", line_buffering=True)
    if sys.stdout is None:
        raise TextgenError(
            "stdout is closed, so there is nowhere to write to; to write nothing: > /dev/null"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
        if sys.stdout.isatty():
            sys.stdout = _Visible(
                sys.stdout.buffer, encoding="utf-8", errors="replace", line_buffering=True
            )


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


def print_failure(line: str) -> None:
    """Write a line to stdout, in colour on a terminal."""
    is_plain = not sys.stdout.isatty()
    print_text(
        f"{line}\n" if is_plain else _Styled(click.style(visible(line), fg="red", bold=True) + "\n")
    )


class _Styled(str):
    """A text whose escapes are our own."""

    __slots__ = ()


class _Visible(io.TextIOWrapper):
    """A terminal, which control characters in a text do not reach."""

    def write(self, text: str) -> int:
        return super().write(text if isinstance(text, _Styled) else visible(text))


class _Messages(_Visible):
    """The same for stderr. A bar returns to the beginning of its line, which no message begins or ends with."""

    def write(self, text: str) -> int:
        begins, ends = text.startswith("\r"), len(text) > 1 and text.endswith("\r")
        line = visible(text[begins : len(text) - ends])
        return io.TextIOWrapper.write(self, "\r" * begins + line + "\r" * ends)


class _Lasting(io.RawIOBase):
    """Writes where stderr leads, and nowhere once that has failed: its reader is gone, its terminal, or its disk full.

    Whatever is said there accompanies the work, and hours of training are not lost to it.
    """

    name: Final = "<stderr>"

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream  # which closes what is under it once nobody has it any more
        self._raw: Any = getattr(
            stream.buffer, "raw", stream.buffer
        )  # `python -u` has no buffer between
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
                if (
                    written is not None
                ):  # None: it would have to wait, and nobody waits for a message
                    return written
        return len(data)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
