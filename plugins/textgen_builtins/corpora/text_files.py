"""Reads text files in pieces; errors name the byte."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from textgen.errors import CorpusError
from textgen.files import encoding_of_mark
from textgen_builtins.corpora.config import FileConfig

_PIECE: Final = 1 << 20


@attrs.frozen
class FileCorpus:
    """textgen.protocols.Corpus over files, in pieces of about a megabyte."""

    config: FileConfig

    def read(self) -> Iterator[str]:
        """Yield the text of the files. Raises CorpusError for missing, unreadable or wrongly encoded files."""
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
        paths = self.config.path if isinstance(self.config.path, tuple) else (self.config.path,)
        files = []
        for path in paths:
            try:
                is_folder = path.is_dir()
                found = sorted(p for p in path.glob(self.config.glob) if p.is_file()) if is_folder else [path]
            except OSError as error:
                raise CorpusError(f"cannot be read: {error.strerror or error}", path) from error
            if not found:
                raise CorpusError(f"no file in it matches {self.config.glob!r}; see option glob", path)
            files += found
        if not files:
            raise CorpusError("no file is named: option path is an empty list")
        return files

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
