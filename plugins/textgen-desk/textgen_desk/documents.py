"""Documents that are written with a run: each is two files in a folder.

    TITLE.md     its text
    TITLE.json   the tree of its versions, as the page has it, and the text once more
    .TITLE.new   the text while it is being written
    .bin/        documents that were removed

A document is written in three steps: the text as .TITLE.new, then TITLE.json, and then .TITLE.new
gets the name TITLE.md. Before the second, the document is what it was: a disk that is full changes
nothing. If a process is killed before the third, .TITLE.new is still there with the text of
TITLE.json, and a reader takes it for the text. Any other text in TITLE.md than the one in
TITLE.json was written by another program, and is taken in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from textgen import UsageError
from textgen.files import inside, new_file, read_bytes, rename, write_atomic
from textgen_desk.names import binned, check_name, is_binned, is_name, numbered, unbinned
from textgen_serve.errors import ApiError
from textgen_serve.json_body import parse_object

_TEXT, _TREE, _UNSETTLED, _BIN = ".md", ".json", ".new", ".bin"
_LEFTOVER: Final = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")  # of textgen.files.write_atomic
_VALUES: Final = 4_000_000  # of TITLE.json, as `parse_object` counts them
_LOCK: Final = threading.Lock()  # a writer compares what is there with what it has read


class ConflictError(Exception):
    """Another has written since the document was read."""


@attrs.frozen
class Document:
    """A document as it is in the folder.

    etag   changes with its files
    tree   None where there is a text alone
    text   what another program has made of it; None where nothing has
    """

    etag: str
    tree: Any = None
    text: str | None = None


@attrs.frozen
class _Files:
    """What is in the files of a document; None for a file that is not there.

    text        of TITLE.md; of .TITLE.new where a process was killed before it had the other name
    is_settled  whether TITLE.md has the text
    """

    text: bytes | None
    tree: bytes | None
    is_settled: bool = True

    def exists(self) -> bool:
        return self.text is not None or self.tree is not None

    def etag(self) -> str:
        return f'"{_digest(_digest(self.text or b"").encode() + (self.tree or b""))[:32]}"'


@attrs.frozen
class Documents:
    """The documents in a folder, which need not exist yet. Methods raise UsageError, RunError for a
    file that leads out of the folder or is none, and OSError.
    """

    folder: Path

    def titles(self) -> list[dict[str, Any]]:
        """Title and time of each, the newest first."""
        found = dict[str, float]()
        for entry in _entries(self.folder):
            title, suffix = os.path.splitext(entry.name)
            if suffix in (_TEXT, _TREE) and is_name(title):
                with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                    changed = entry.stat(follow_symlinks=False).st_mtime
                    found[title] = max(changed, found.get(title, 0.0))
        ordered = sorted(found, key=lambda title: -found[title])
        return [{"title": title, "changed": found[title]} for title in ordered]

    def read(self, title: str) -> Document:
        """A document."""
        with _LOCK:
            files = self._existing(title)
            if not files.is_settled:
                with contextlib.suppress(OSError):  # the disk is full: the next one does it
                    self._settle(title, files)
        record = _record(files.tree)
        if record is None:
            return Document(files.etag(), None, _decoded(files.text or b""))
        is_edited = files.text != record["text"].encode()
        return Document(
            files.etag(), record["tree"], _decoded(files.text or b"") if is_edited else None
        )

    def write(self, title: str, text: str, tree: Any, etag: str | None) -> str:
        """Write what came of the document with an etag; without, a new one. Returns its etag.

        Raises ConflictError where the document is another.
        """
        with _LOCK:
            before = self._files(title)
            if etag != (before.etag() if before.exists() else None):
                raise ConflictError
            self.folder.mkdir(mode=0o700, exist_ok=True)
            record = json.dumps({"text": text, "tree": tree}, ensure_ascii=False)
            made = _Files(text.encode(), record.encode())
            unsettled = self._unsettled(title)
            try:
                with new_file(self._path(title, _TREE)) as file:
                    file.write(made.tree or b"")
                    file.flush()  # so that there is room for both before either changes
                    write_atomic(unsettled, made.text or b"")
            except BaseException:
                with contextlib.suppress(OSError):
                    unsettled.unlink(missing_ok=True)
                raise
            rename(unsettled, self._path(title, _TEXT))
            return made.etag()

    def rename(self, title: str, wished: str) -> None:
        """Give a document another title, which no other has."""
        with _LOCK:
            if self._files(wished).exists():
                raise UsageError(f"there is a {wished!r} already")
            self._settle(title, self._existing(title))
            self._move(title, self.folder / wished)

    def remove(self, title: str) -> None:
        """Move a document to the bin."""
        with _LOCK:
            self._settle(title, self._existing(title))
            bin_folder = inside(self.folder, _BIN)
            bin_folder.mkdir(mode=0o700, exist_ok=True)
            self._move(title, bin_folder / binned(title))

    def removed(self) -> list[str]:
        """The names of what is in the bin."""
        names = {os.path.splitext(entry.name)[0] for entry in _entries(self._bin())}
        return sorted(filter(is_binned, names))

    def restore(self, name: str) -> None:
        """Take a document out of the bin, under the title that it had, or one like it."""
        with _LOCK:
            free = numbered(unbinned(name, self.removed()))
            title = next(each for each in free if not self._files(each).exists())
            Documents(self._bin())._move(name, self.folder / title)

    def sweep(self) -> None:
        """Finish or remove what killed processes have left, while no other writes here."""
        for entry in _entries(self.folder):
            title = entry.name.removeprefix(".").removesuffix(_UNSETTLED)
            if entry.name == f".{title}{_UNSETTLED}" and is_name(title):
                self._settle(title, self._files(title))
                self._unsettled(title).unlink(missing_ok=True)
        for folder in (self.folder, self._bin()):
            sweep(folder)

    def _bin(self) -> Path:
        return inside(self.folder, _BIN)

    def _path(self, title: str, suffix: str) -> Path:
        return inside(self.folder, f"{title}{suffix}")

    def _unsettled(self, title: str) -> Path:
        return inside(self.folder, f".{title}{_UNSETTLED}")

    def _existing(self, title: str) -> _Files:
        files = self._files(title)
        if not files.exists():
            raise UsageError(f"there is no document {title!r}")
        return files

    def _files(self, title: str) -> _Files:
        check_name(title)
        text, tree = (_read(self._path(title, suffix)) for suffix in (_TEXT, _TREE))
        record = _record(tree)
        if record is not None:
            kept = record["text"].encode()
            if text is None or (text != kept and _read(self._unsettled(title)) == kept):
                return _Files(kept, tree, is_settled=False)
        return _Files(text, tree)

    def _settle(self, title: str, files: _Files) -> None:
        """Give the text its name, where a killed process has not."""
        if not files.is_settled:
            if _read(self._unsettled(title)) != files.text:
                write_atomic(self._unsettled(title), files.text or b"")
            rename(self._unsettled(title), self._path(title, _TEXT))

    def _move(self, title: str, target: Path) -> None:
        """Rename the files of a document. The tree, which has the text as well, is the last."""
        for suffix in (_TEXT, _TREE):
            path = self.folder / f"{title}{suffix}"
            if os.path.lexists(path):
                rename(path, target.with_name(target.name + suffix))


def sweep(folder: Path) -> None:
    """Remove files of a folder that were being written when a process was killed."""
    for entry in _entries(folder):
        if _LEFTOVER.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The regular files in a folder; none where it is not there. Links are left out."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    yield entry


def _read(path: Path) -> bytes | None:
    return read_bytes(path) if os.path.lexists(path) else None


def _record(tree: bytes | None) -> dict[str, Any] | None:
    """What TITLE.json holds; None where it is not what `Documents.write` writes."""
    try:
        value = parse_object(bytearray(tree or b""), _VALUES)
    except ApiError:
        return None
    return value if "tree" in value and isinstance(value.get("text"), str) else None


def _decoded(text: bytes) -> str:
    return text.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
