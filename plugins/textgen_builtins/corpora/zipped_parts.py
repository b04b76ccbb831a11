"""The parts of documents that are zip archives: EPUB, OpenDocument and Word."""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from textgen.errors import CorpusError

_MAX_BYTES: Final = 1 << 26  # bytes of the parts that are read, which are held in memory
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # which the standards allow
_FAULTS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    LookupError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


class Parts:
    """Reads parts, as many bytes of them as are allowed in all."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path, self._left = archive, path, _MAX_BYTES

    def __contains__(self, name: str) -> bool:
        return name in self._archive.NameToInfo

    def read(self, name: str) -> bytes:
        """The bytes of a part. Raises CorpusError where they are too many, KeyError for none."""
        part = self._archive.getinfo(name)
        self._left -= part.file_size  # no more are read, whatever there is
        if self._left < 0:
            raise CorpusError(f"its text takes more than {_MAX_BYTES:,} bytes", self._path)
        if part.compress_type not in _METHODS:
            raise ValueError(f"{name} is compressed in another way than deflate")
        return self._archive.read(part)


@contextlib.contextmanager
def opened(path: Path, kind: str) -> Iterator[Parts]:
    """The parts of a file. Raises CorpusError where it is not of its kind, or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Parts(archive, path)
    except _FAULTS as error:
        raise CorpusError(f"it is not {kind}, or is damaged", path) from error
