"""The options of the built-in corpora."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any, Literal

import attrs
from attrs.validators import ge, optional

from textgen import Address, option
from textgen_builtins.corpora.encodings import AUTO


def _encoding(instance: Any, attribute: Any, value: str) -> None:
    if value == AUTO:
        return
    try:
        "a".encode(value)  # looks it up, and refuses codecs such as hex that are not text encodings
    except (LookupError, ValueError):
        raise ValueError(
            'must be "auto", or an encoding that Python knows, such as utf-8 or cp1252'
        ) from None


def _glob(instance: Any, attribute: Any, value: str) -> None:
    parts = PurePath(value).parts
    if (
        not parts
        or PurePath(value).anchor
        or "\0" in value
        or any(part == ".." or ("**" in part and part != "**") for part in parts)
    ):
        raise ValueError("must be a pattern for paths below the folder, such as *.md or **/*.txt")


@attrs.frozen
class FileConfig:
    """Texts of your own: files, folders, and addresses of files.

    Files are read in the given order, those of a folder sorted by path. Without documents, a line
    break is added to each file that does not end with one. Empty lines are not documents. gzip and
    Zstandard files are recognised by their first bytes, and decompressed.
    """

    path: Address | Path | tuple[Address | Path, ...] = option(
        help="a file, a folder, an address (https://…), or a list of these; downloads are "
        "kept in the cache"
    )
    glob: str | None = option(
        None,
        help="pattern for the files of a folder; if not set, those in it and below whose "
        "suffix is one of texts, or of "
        "JSON lines if that is what the documents are",
        validator=optional(_glob),
    )
    documents: Literal["none", "file", "line", "paragraph", "part", "jsonl"] = option(
        "none",
        help='what a document is: a "file", a "line", a "paragraph" between empty lines, a "part" '
        'between lines of signs (***) or two empty lines, or a line of JSON ("jsonl"); "none" '
        "reads one text",
    )
    field: str = option("text", help="key of the text in each object of JSON lines")
    encoding: str = option(
        "auto",
        help='encoding of the files; "auto" follows a byte order mark, or else is UTF-8',
        validator=_encoding,
    )
    gutenberg: bool = option(
        False, help="leave out what Project Gutenberg puts before and after a book"
    )
    wrapped_at: int | None = option(
        None,
        help="width in characters at which the lines of paragraphs are broken: they are joined",
        validator=optional(ge(1)),
    )

    def __attrs_post_init__(self) -> None:
        if self.wrapped_at is not None and self.documents in ("line", "jsonl"):
            raise ValueError(f'wrapped_at joins lines, which documents = "{self.documents}" needs')


@attrs.frozen
class StoryConfig:
    """An original story of 87,000 characters that comes with textgen."""


@attrs.frozen
class TimeMachineConfig:
    """The Time Machine by H. G. Wells (1895), public domain; 178,979 bytes, downloaded once."""
