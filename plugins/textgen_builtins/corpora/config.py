"""The options of the built-in corpora."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any, Literal

import attrs
from attrs.validators import optional

from textgen import option


def _encoding(instance: Any, attribute: Any, value: str) -> None:
    try:
        "a".encode(value)  # looks it up, and refuses codecs such as hex that are not text encodings
    except (LookupError, ValueError):
        raise ValueError("must be an encoding that Python knows, such as utf-8, cp1252 or latin-1") from None


def _glob(instance: Any, attribute: Any, value: str) -> None:
    parts = PurePath(value).parts
    if not parts or PurePath(value).anchor or "\0" in value or any("**" in part and part != "**" for part in parts):
        raise ValueError("must be a pattern for paths below the folder, such as *.md or **/*.txt")


@attrs.frozen
class FileConfig:
    """Text files of your own.

    Several files are read in the given order, those of a folder sorted by path. Without documents, a line break is
    added to each that does not end with one. Empty lines are no documents.
    """

    path: Path | tuple[Path, ...] = option(help="a file, a list of files, or a folder")
    glob: str | None = option(
        None,
        help="pattern for the files of a folder; *.txt, or *.jsonl for JSON lines, in it and below if not set",
        validator=optional(_glob),
    )
    documents: Literal["none", "file", "line", "jsonl"] = option(
        "none", help='what a document is, if they are to be told apart: a "file", a "line", or a line of JSON ("jsonl")'
    )
    field: str = option("text", help="key of the text in each object of JSON lines")
    encoding: str = option("utf-8", help="encoding of the files", validator=_encoding)
    line_endings: Literal["lf", "keep"] = option("lf", help='"lf" turns CRLF and CR into LF; "keep" changes nothing')
    byte_order_mark: Literal["strip", "keep"] = option("strip", help="what to do with U+FEFF at the start of a file")


@attrs.frozen
class StoryConfig:
    """An original story of 87,000 characters that comes with textgen."""


@attrs.frozen
class TimeMachineConfig:
    """H. G. Wells, The Time Machine (1895), in the public domain; 178,979 bytes, downloaded once."""
