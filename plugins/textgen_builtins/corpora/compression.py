"""The bytes of a file, decompressed where it begins as gzip and Zstandard files do."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from textgen.errors import CorpusError
from textgen.files import is_special

_PIECE: Final = 1 << 20
_EXPANDS: Final = (
    100  # times that a text expands at most, where it is longer than _UNLIMITED_BYTES bytes
)
_UNLIMITED_BYTES: Final = 1 << 26
_GZIP: Final = b"\x1f\x8b"
_ZSTANDARD: Final = b"\x28\xb5\x2f\xfd"


def read_bytes(path: Path) -> Iterator[bytes]:
    """Yield the content in pieces of a megabyte, in bounded memory however far it expands.

    Raises CorpusError.
    """
    damaged: tuple[type[Exception], ...] = ()
    try:
        if is_special(path):  # a pipe can be read once, and a device for ever
            raise CorpusError("it is not a regular file, and a corpus is read from files", path)
        with path.open("rb") as file:
            beginning = file.read(len(_ZSTANDARD))
            file.seek(0)
            stream, damaged = _decompressed(file, beginning, path)
            size, most = 0, max(_UNLIMITED_BYTES, _EXPANDS * path.stat().st_size)
            while piece := stream.read(_PIECE):
                size += len(piece)
                if size > most:
                    raise CorpusError("it expands to more than 100 times its size", path)
                yield piece
    except damaged as error:
        raise CorpusError(f"its compressed data is damaged or cut off: {error}", path) from error
    except OSError as error:
        raise CorpusError(f"cannot be read: {error.strerror or error}", path) from error


def _decompressed(
    file: IO[bytes], beginning: bytes, path: Path
) -> tuple[Any, tuple[type[Exception], ...]]:
    """The stream to read, and the exceptions that damaged data raises in it."""
    if beginning.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file), (EOFError, zlib.error, gzip.BadGzipFile)
    if beginning != _ZSTANDARD:
        return file, ()
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        cause = "it is compressed by Zstandard, which this Python cannot read"
        raise CorpusError(f"{cause}; pip install backports.zstd", path) from error
    return zstd.ZstdFile(file), (EOFError, zstd.ZstdError)
