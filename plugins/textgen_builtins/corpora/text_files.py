"""Reads text files in pieces; errors name the byte, or the line."""

from __future__ import annotations

import io
import itertools
import json
import re
import reprlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

import attrs

from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import CorpusError
from textgen_builtins.corpora import wrapped_lines
from textgen_builtins.corpora.compression import read_bytes
from textgen_builtins.corpora.config import FileConfig
from textgen_builtins.corpora.encodings import AUTO, decode
from textgen_builtins.corpora.epub_text import text_of_epub
from textgen_builtins.corpora.file_facts import HTML, inner_suffix
from textgen_builtins.corpora.gutenberg import book_alone
from textgen_builtins.corpora.html_text import encoding_of_page, text_of_html
from textgen_builtins.corpora.office_text import text_of_docx, text_of_odt
from textgen_builtins.corpora.rtf_text import is_rtf, text_of_rtf
from textgen_builtins.corpora.separated import parts_marked
from textgen_builtins.corpora.sources import Folder, find

_LONGEST_LINE: Final = 1 << 24  # characters of JSON, which is parsed as a whole
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_FORMATS: Final = {  # by suffix: how to recognise and to read a file that is no plain text
    ".docx": (zipfile.is_zipfile, text_of_docx),
    ".odt": (zipfile.is_zipfile, text_of_odt),
    ".epub": (zipfile.is_zipfile, text_of_epub),
    ".rtf": (is_rtf, text_of_rtf),
}


@attrs.frozen
class FileCorpus:
    """textgen.protocols.Corpus over files, in pieces of about a megabyte.

    console   where it is said, when the text is first read, what folders hold
    offline   whether addresses must be in the cache
    sha256    the SHA-256 that what is downloaded must have
    """

    config: FileConfig
    console: TextIO | None = None
    offline: bool = False
    sha256: str | None = None
    _said: list[str] = attrs.field(factory=list, init=False, eq=False)

    def read(self) -> Iterator[CorpusPiece]:
        """Yield the text of the files, and DOCUMENT_END after each document.

        Raises CorpusError for missing, unreadable or wrongly encoded files, and for wrong JSON.
        """
        files = self._files_said()
        for path in files:
            pieces = self._read_file(path)
            match self.config.documents:
                case "none":
                    yield from pieces if len(files) == 1 else _ended(pieces)
                case "file":
                    yield from pieces
                    yield DOCUMENT_END
                case "line":
                    yield from _lines_marked(pieces)
                case "paragraph":
                    yield from parts_marked(_lines(pieces, path), empty_lines=1)
                case "part":
                    yield from parts_marked(_lines(pieces, path), empty_lines=2)
                case "jsonl":
                    for text in _texts_of_json(pieces, path, self.config.field):
                        yield from (text, DOCUMENT_END)

    def sources(self) -> list[Path]:
        """The files that `read` reads, in order. Raises CorpusError."""
        return self._found()[0]

    def _found(self) -> tuple[list[Path], list[Folder]]:
        return find(self.config, self.sha256, console=self.console, offline=self.offline)

    def _files_said(self) -> list[Path]:
        """The same, said once on the console where they are those of folders."""
        files, folders = self._found()
        if self.console and not self._said:
            self._said.extend(f"corpus {folder.describe()}" for folder in folders)
            print(*self._said, sep="\n", end="\n" if folders else "", file=self.console)
        return files

    def _read_file(self, path: Path) -> Iterator[str]:
        is_one, text_of = _FORMATS.get(path.suffix.lower(), (None, self._decoded))
        if is_one is not None and not (path.is_file() and is_one(path)):
            text_of = self._decoded
        pieces = text_of(path)
        if self.config.gutenberg:
            pieces = book_alone(pieces, path)
        if self.config.wrapped_at is not None:
            pieces = wrapped_lines.joined(_lines(pieces, path), self.config.wrapped_at)
        return filter(None, pieces)

    def _decoded(self, path: Path) -> Iterator[str]:
        data, encoding = read_bytes(path), self.config.encoding
        is_page = inner_suffix(path) in HTML
        if is_page and encoding == AUTO:
            first = next(data, b"")
            data, encoding = itertools.chain([first], data), encoding_of_page(first)
        pieces = _with_line_feeds(_without_mark(decode(data, path, encoding)))
        return text_of_html(pieces, path) if is_page else pieces


def _ended(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces, and a line break if the last does not end with one."""
    last = ""
    for last in pieces:
        yield last
    if last and not last.endswith("\n"):
        yield "\n"


def _lines_marked(pieces: Iterator[str]) -> Iterator[CorpusPiece]:
    """Each line as a document, whatever its length; the line break is not part of it."""
    for piece in pieces:
        *lines, rest = piece.split("\n")
        for line in lines:
            yield from (line, DOCUMENT_END)
        yield rest
    yield DOCUMENT_END


def _texts_of_json(pieces: Iterator[str], path: Path, field: str) -> Iterator[str]:
    """The text in each object of JSON lines. Raises CorpusError, naming the line.

    Half of a surrogate pair, which JSON can escape, is no character and becomes U+FFFD.
    """
    for number, line in enumerate(_lines(pieces, path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = (
                f"{error.msg} (column {error.colno})"
                if isinstance(error, json.JSONDecodeError)
                else str(error)
            )
            advice = "; see the option documents" if number == 1 else ""  # it may be another kind
            raise CorpusError(f"line {number} is not JSON: {why}{advice}", path) from error
        if not isinstance(value, dict):
            cause = f"is not a JSON object, which is a line such as {{{field!r}: …}}"
            raise CorpusError(f"line {number} {cause}", path)
        if not isinstance(value.get(field), str):
            names = ", ".join(map(reprlib.repr, itertools.islice(value, 5)))
            cause = f"has no text in a field {field!r}; its fields are {names or 'none'}"
            raise CorpusError(f"line {number} {cause}; see the option field", path)
        yield _SURROGATES.sub("\ufffd", value[field].replace("\r\n", "\n"))


def _lines(pieces: Iterator[str], path: Path) -> Iterator[str]:
    """Whole lines, without their breaks."""
    parts: list[str] = []
    length = 0
    for piece in pieces:
        first, *others = piece.split("\n")
        parts.append(first)
        length += len(first)
        if length > _LONGEST_LINE:
            raise CorpusError(f"a line of it is longer than {_LONGEST_LINE:,} characters", path)
        for line in others:
            yield "".join(parts)
            parts, length = [line], len(line)
    yield "".join(parts)


def _without_mark(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces without a byte order mark at their beginning."""
    begun = False
    for piece in pieces:
        yield piece if begun else piece.removeprefix("\ufeff")
        begun = begun or bool(piece)


def _with_line_feeds(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces with CRLF and CR as LF, also across the borders of pieces."""
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode("", final=True)
