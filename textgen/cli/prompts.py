"""Reads the prompts of `textgen generate`: from its options, from files, or from stdin."""

from __future__ import annotations

import contextlib
import os
import queue
import stat
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from textgen.errors import CorpusError, UsageError
from textgen.files.encodings import decode
from textgen.visible import byte_count

_PATIENCE_SECONDS: Final = 1.0
_LARGEST: Final = 64_000_000  # bytes of a file of prompts: some, such as devices, have no end


def read_prompts(
    prompts: Sequence[str], prompt_file: str | None, prompts_file: str | None, *, may_be_piped: bool
) -> list[tuple[str, str]]:
    """Each prompt, and FILE:LINE where it is a line of a file. Raises UsageError.

    may_be_piped  whether stdin is read where no prompt is given and something is piped in
    """
    if (
        prompts_file is not None
    ):  # only a line's end ends one: a form feed, say, is a character like any other
        lines = _read(prompts_file).split("\n")
        return [(line, f"{prompts_file}:{number}") for number, line in enumerate(lines, 1) if line]
    begun = _piped_in() if prompt_file is None and not prompts and may_be_piped else None
    if begun is not None:
        return [(_read("-", begun).removesuffix("\n"), "")]
    if prompt_file is not None:
        return [(_read(prompt_file).removesuffix("\n"), "")]
    return [(prompt, "") for prompt in prompts or [""]]


def as_text(argument: str) -> str:
    """An argument of the command as UTF-8, also where the locale is another, as in LC_ALL=C."""
    try:
        argument.encode()
    except UnicodeEncodeError:  # Python has put surrogates in place of its bytes
        with contextlib.suppress(UnicodeError):
            return os.fsencode(argument).decode()
    return argument


def as_path(text: str) -> str:
    """What was typed, as the path it names: the reverse of `as_text`."""
    return os.fsdecode(text.encode())


def check_utf8(text: str, what: str = "the prompt") -> None:
    """Raise UsageError for a text with bytes that are not UTF-8: Python has put surrogates in their place."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        raise UsageError(
            f"{what} is not valid UTF-8: byte 0x{byte:02x} after {text[: error.start]!r}"
        ) from error


def _piped_in() -> bytes | None:
    """The beginning of what is piped in on stdin; None where nothing is, or nothing comes for a second."""
    try:
        number = sys.stdin.fileno()
        mode = os.fstat(number).st_mode
    except (AttributeError, OSError, ValueError):  # it is closed, or nothing that can be asked
        return None
    if not stat.S_ISFIFO(mode):
        return b"" if stat.S_ISREG(mode) else None
    come: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # A thread, since select takes no pipes on Windows. Nobody may ever write to one that is open.
    threading.Thread(target=lambda: come.put(os.read(number, 1)), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return come.get(timeout=_PATIENCE_SECONDS)
    click.echo(
        "textgen: warning: nothing came on stdin yet; --prompt-file - waits for it", err=True
    )
    return None


def _read(path: str, begun: bytes = b"") -> str:
    """The text of a file, or of stdin for "-" after what was read of it, with line breaks as \\n. Raises UsageError."""
    if path == "-" and sys.stdin is None:  # it was closed before the process began
        raise UsageError("- reads stdin, which is closed")
    try:
        with (
            contextlib.nullcontext(sys.stdin.buffer)
            if path == "-"
            else Path(path).open("rb") as file
        ):
            data = begun + file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise UsageError(f"{path} has more than {byte_count(_LARGEST)}, too much for prompts")
        text = "".join(decode([data], Path(path))).removeprefix("\ufeff")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except CorpusError as error:
        if error.offset is None:
            raise UsageError(str(error)) from error
        line = data.count(b"\n", 0, error.offset) + 1
        cause = f"{path}:{line}: not {error.encoding.upper()}"
        raise UsageError(f"{cause}; save the prompts as UTF-8 text") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
