"""Reads text files in pieces; errors name the byte, or the line."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import CorpusError
from textgen.files import encoding_of_mark
from textgen_builtins.corpora.config import FileConfig

_PIECE: Final = 1 << 20
_SHOWN: Final = 5  # suffixes named in an error


def files_in(folder: Path, glob: str) -> list[Path]:
    """The files of a folder that match a pattern, sorted. Without regard to case: TXT is as good as txt."""
    return sorted(path for path in folder.glob(_any_case(glob)) if path.is_file())


def _any_case(glob: str) -> str:
    """A pattern with each letter as a set of both its cases: `case_sensitive=False` comes with Python 3.12."""
    return re.sub("[a-zA-Z]", lambda c: f"[{c[0].lower()}{c[0].upper()}]", glob) if "[" not in glob else glob


@attrs.frozen
class FileCorpus:
    """textgen.protocols.Corpus over files, in pieces of about a megabyte."""

    config: FileConfig

    def read(self) -> Iterator[CorpusPiece]:
        """Yield the text of the files, and DOCUMENT_END after each document.

        Raises CorpusError for missing, unreadable or wrongly encoded files, and for wrong JSON.
        """
        if self.config.documents == "none":
            yield from self._read_joined()
            return
        for path in self.files():
            pieces = self._read_file(path)
            if self.config.documents == "file":
                yield from pieces
                yield DOCUMENT_END
            elif self.config.documents == "line":
                yield from _lines_marked(pieces)
            else:
                for text in _texts_of_json(pieces, path, self.config.field):
                    yield from (text, DOCUMENT_END)

    def _read_joined(self) -> Iterator[str]:
        files = self.files()
        several = len(files) > 1
        for path in files:
            last = ""
            for last in self._read_file(path):
                yield last
            if last and not last.endswith(("\n", "\r")) and several:
                yield "\n"

    def files(self) -> list[Path]:
        """The existing files, in reading order."""
        glob = self.config.glob or ("**/*.jsonl" if self.config.documents == "jsonl" else "**/*.txt")
        paths = self.config.path if isinstance(self.config.path, tuple) else (self.config.path,)
        files = []
        for path in paths:
            try:
                is_folder = path.is_dir()
                found = files_in(path, glob) if is_folder else [path]
            except OSError as error:
                raise CorpusError(f"cannot be read: {error.strerror or error}", path) from error
            if not found:
                there = sorted({file.suffix or file.name for file in path.rglob("*") if file.is_file()})[:_SHOWN]
                holds = f"it holds {', '.join(there)}" if there else "it holds no file"
                raise CorpusError(f"no file in it matches {glob!r}: {holds}; see option glob", path)
            files += found
        if not files:
            raise CorpusError("no file is named: option path is an empty list")
        return files

    def sources(self) -> list[Path]:
        """The files: with the options they determine what `read` gives."""
        return self.files()

    def _read_file(self, path: Path) -> Iterator[str]:
        pieces = self._decode(path)
        if self.config.byte_order_mark == "strip":
            pieces = _without_mark(pieces)
        if self.config.line_endings == "lf":
            pieces = _with_line_feeds(pieces)
        return filter(None, pieces)

    def _decode(self, path: Path) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.config.encoding)()
        offset, data = 0, b""
        try:
            with path.open("rb") as file:
                while data := file.read(_PIECE):
                    yield decoder.decode(data)
                    offset += len(data)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise self._undecodable(path, offset, data, error) from error
        except UnicodeError as error:  # UTF-16 and UTF-32 without a mark
            encoding = self.config.encoding
            cause = f"it has no byte order mark, and {encoding} needs one; set option encoding to {encoding}-le or -be"
            raise CorpusError(cause, path, encoding=encoding) from error
        except OSError as error:
            raise CorpusError(f"cannot be read: {error.strerror or error}", path) from error

    def _undecodable(self, path: Path, offset: int, data: bytes, error: UnicodeDecodeError) -> CorpusError:
        # The decoder reports positions in the bytes held back from earlier pieces plus this one.
        place = offset + len(data) - len(error.object) + error.start
        byte = f"0x{error.object[error.start]:02x}"
        encoding, marked = self.config.encoding, "" if offset else encoding_of_mark(data)
        if codecs.lookup(encoding).name.startswith(marked):  # that is what it was read as
            marked = ""
        return CorpusError(
            f"it is not {encoding}: byte {byte} at offset {place} ({error.reason})",
            path,
            encoding=encoding,
            offset=place,
            suggested_encoding=marked,
        )


def _lines_marked(pieces: Iterator[str]) -> Iterator[CorpusPiece]:
    """Each line as a document, whatever its length; the line break is not part of it."""
    for piece in pieces:
        *lines, rest = piece.split("\n")
        for line in lines:
            yield from (line, DOCUMENT_END)
        yield rest
    yield DOCUMENT_END


def _texts_of_json(pieces: Iterator[str], path: Path, field: str) -> Iterator[str]:
    """The text in each object of JSON lines. Raises CorpusError, naming the line."""
    for number, line in enumerate(_lines(pieces), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"line {number} is not JSON: {error}", path) from error
        if not isinstance(value, dict):
            raise CorpusError(f"line {number} is not a JSON object, which is a line such as {{{field!r}: …}}", path)
        if field not in value:
            known = ", ".join(map(repr, value)) or "nothing"
            raise CorpusError(f"line {number} has no field {field!r}, but {known}; see option field", path)
        if not isinstance(value[field], str):
            what = type(value[field]).__name__
            raise CorpusError(f"line {number}: its field {field!r} is of type {what}, and must be a text", path)
        yield value[field]


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """Whole lines, without their breaks."""
    parts: list[str] = []
    for piece in pieces:
        first, *others = piece.split("\n")
        parts.append(first)
        for line in others:
            yield "".join(parts)
            parts = [line]
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
