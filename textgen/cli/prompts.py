"""Reads the prompts of `textgen generate`: from its options, from a file of lines, or from
stdin.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from textgen.errors import UsageError

_MOST: Final = 20_000  # characters of a prompt on stdin: a whole novel takes a minute, for nothing


def read_prompts(prompts: Sequence[str], file: str | None) -> list[tuple[str, str]]:
    """Each prompt, and FILE:LINE where it is a line of a file. Raises UsageError.

    If no prompt is given and stdin is not a terminal, it is read to its end.
    """
    if file is not None:
        # Only a line's end ends a prompt: a form feed, say, is a character like any other.
        lines = enumerate(_read(file).split("\n"), 1)
        return [(line, f"{file}:{number}") for number, line in lines if line]
    if not prompts and sys.stdin is not None and not sys.stdin.isatty():
        text = _read("-").removesuffix("\n")
        if len(text) > _MOST:
            said = f"stdin has {len(text):,} characters; its last {_MOST:,} are the prompt"
            click.echo(f"textgen: warning: {said}", err=True)
        return [(text[-_MOST:], "")]
    return [(prompt, "") for prompt in prompts or [""]]


def _read(path: str) -> str:
    """The text of a file, or of stdin for "-", with line breaks as \\n. Raises UsageError."""
    with click.open_file(path, "rb") as file:
        data = file.read()
    try:
        text: str = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8; save the prompts as UTF-8 text") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
