"""Documents that are written with a run: each is two files in a folder.

    TITLE.md     its text
    TITLE.json   the tree of its versions, as the page has it, and the text once more
    .bin/        documents that were removed

The JSON is written first. If nothing else of the text is known than what is in it, the text is
written again after a crash; a text that was edited in another program is taken in.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any, Final

import attrs

from textgen import UsageError
from textgen.files import write_atomic
from textgen_serve.names import binned, check_name, is_name, numbered, unbinned

_TEXT, _TREE, _BIN = ".md", ".json", ".bin"
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
class Documents:
    """The documents in a folder, which need not exist yet. Methods raise UsageError and OSError."""

    folder: Path

    def titles(self) -> list[dict[str, Any]]:
        """Title and time of each, the newest first."""
        found = dict[str, float]()
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.suffix in (_TEXT, _TREE) and is_name(path.stem):
                found[path.stem] = max(path.stat().st_mtime, found.get(path.stem, 0.0))
        ordered = sorted(found, key=lambda title: -found[title])
        return [{"title": title, "changed": found[title]} for title in ordered]

    def read(self, title: str) -> Document:
        """A document."""
        text, tree = self._files(title)
        if text is None and tree is None:
            raise UsageError(f"there is no document {title!r}")
        record = _record(tree)
        if record is None:
            return Document(_etag(text, tree), None, _decoded(text or b""))
        kept = record["text"].encode()
        if text is None or _digest(text) == record["before"] != _digest(kept):
            write_atomic(self._path(title, _TEXT), kept)  # a crash came between
            text = kept
        edited = None if text == kept else _decoded(text)
        return Document(_etag(text, tree), record["tree"], edited)

    def write(self, title: str, text: str, tree: Any, etag: str | None) -> str:
        """Write what came of the document with an etag; without, a new one. Returns its etag.

        Raises ConflictError where the document is another.
        """
        with _LOCK:
            before, old = self._files(title)
            if etag != (None if before is None and old is None else _etag(before, old)):
                raise ConflictError
            self.folder.mkdir(exist_ok=True)
            data, record = text.encode(), {"text": text, "before": _digest(before or b"")}
            made = json.dumps({**record, "tree": tree}, ensure_ascii=False).encode()
            write_atomic(self._path(title, _TREE), made)
            write_atomic(self._path(title, _TEXT), data)
            return _etag(data, made)

    def rename(self, title: str, wished: str) -> None:
        """Give a document another title, which no other has."""
        with _LOCK:
            if any(each is not None for each in self._files(wished)):
                raise UsageError(f"there is a {wished!r} already")
            self.read(title)
            _move(self.folder / title, self.folder / wished)

    def remove(self, title: str) -> None:
        """Move a document to the bin."""
        place = self.folder / _BIN
        with _LOCK:
            self.read(title)
            place.mkdir(exist_ok=True)
            _move(self.folder / title, place / binned(title))

    def removed(self) -> list[str]:
        """The names of what is in the bin."""
        place = self.folder / _BIN
        return sorted({path.stem for path in place.iterdir()} if place.is_dir() else ())

    def restore(self, name: str) -> None:
        """Take a document out of the bin, under the title that it had, or one like it."""
        with _LOCK:
            free = numbered(unbinned(name, self.removed()))
            title = next(each for each in free if self._files(each) == (None, None))
            _move(self.folder / _BIN / name, self.folder / title)

    def _path(self, title: str, suffix: str) -> Path:
        return self.folder / f"{check_name(title)}{suffix}"

    def _files(self, title: str) -> tuple[bytes | None, bytes | None]:
        text, tree = (self._path(title, suffix) for suffix in (_TEXT, _TREE))
        return tuple(p.read_bytes() if p.is_file() else None for p in (text, tree))  # type: ignore[return-value]


def _move(source: Path, target: Path) -> None:
    """Rename the files of a document. The tree, which has the text as well, is the last."""
    for suffix in (_TEXT, _TREE):
        path = source.with_name(source.name + suffix)
        if path.exists():
            path.rename(target.with_name(target.name + suffix))


def _record(tree: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(tree or b"")
    except (ValueError, RecursionError):
        return None
    has_text = isinstance(value, dict) and isinstance(value.get("text"), str) and "before" in value
    return value if has_text and "tree" in value else None


def _decoded(text: bytes) -> str:
    return text.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _etag(text: bytes | None, tree: bytes | None) -> str:
    return f'"{_digest(_digest(text or b"").encode() + (tree or b""))[:32]}"'
