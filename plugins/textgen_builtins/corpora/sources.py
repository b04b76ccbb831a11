"""The files of a corpus: those named, those of folders, and what was downloaded from
addresses.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Final, TextIO, TypeVar

import attrs

from textgen import Address
from textgen.errors import CorpusError
from textgen.messages import byte_count
from textgen_builtins.corpora.config import FileConfig
from textgen_builtins.corpora.file_facts import COMPRESSED, JSON_LINES, TEXTS, inner_suffix

_SHOWN_NAMES: Final = 5  # names in a message
_OF_RUNS: Final = ("run.json", "pipeline.toml")
_HIDDEN_PREFIXES: Final = (
    ".",
    "~$",
)  # with the second begins what Word keeps beside an open document
_P = TypeVar("_P", bound=PurePath)


@attrs.frozen
class Folder:
    """The contents of a folder: the files to read, sorted, and the others but for hidden ones."""

    path: Path
    files: list[Path]
    skipped: list[Path]

    def describe(self) -> str:
        """ "corpus: 12 files, 3.4 MB; skipped 2 (cover.jpg, notes.docx)"."""
        size = sum(file.stat().st_size for file in self.files)
        number = f"{len(self.files):,} file{'s' * (len(self.files) != 1)}"
        skipped = f"; skipped {len(self.skipped):,} ({named(self.skipped)})" if self.skipped else ""
        return f"{self.path}: {number}, {byte_count(size)}{skipped}"


def find(
    config: FileConfig, sha256: str | None, *, console: TextIO | None, offline: bool
) -> tuple[list[Path], list[Folder]]:
    """The files of a corpus in reading order, and the folders among what is named.

    Raises CorpusError, also where a download has another SHA-256.
    """
    paths = config.path if isinstance(config.path, tuple) else (config.path,)
    files: list[Path] = []
    folders: list[Folder] = []
    for path in paths:
        if isinstance(path, Address):
            from textgen_builtins.corpora.downloads import fetched

            files.append(fetched(path, sha256, console=console, offline=offline))
            continue
        try:
            if path.is_dir():
                folders.append(_folder(path, config))
                files += folders[-1].files
            else:
                files.append(path)
        except OSError as error:
            raise CorpusError(f"cannot be read: {error.strerror or error}", path) from error
    if not files:
        raise CorpusError("no file is named: option path is an empty list")
    return files, folders


def _folder(path: Path, config: FileConfig) -> Folder:
    if config.glob is not None:
        found = (file for file in path.glob(config.glob) if file.is_file())
        seen = (file for file in found if not _is_hidden(file.relative_to(path)))
        folder = Folder(path, in_reading_order(seen, path), [])
        cause = f"no file in it matches {config.glob!r}"
    else:
        suffixes = JSON_LINES if config.documents == "jsonl" else TEXTS
        there = in_reading_order(visible_files(path), path)
        files = [file for file in there if inner_suffix(file) in suffixes and file.is_file()]
        taken = {*files}
        folder = Folder(path, files, [file for file in there if file not in taken])
        cause = (
            f"no file in it is a text by its suffix, {', '.join(suffixes)}, with "
            f"{' or '.join(COMPRESSED)} or without"
        )
    if not folder.files:
        others = named(folder.skipped or in_reading_order(visible_files(path), path))
        advice = "see the options glob and documents"
        raise CorpusError(f"{cause}: it holds {others or 'no file'}; {advice}", path)
    return folder


def in_reading_order(files: Iterable[_P], folder: _P) -> list[_P]:
    """Files sorted by their paths within the folder, in which case counts on every system: Windows
    ignores it.
    """
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def visible_files(folder: Path) -> Iterable[Path]:
    """The files in a folder and below, but for hidden ones and those of runs: also pipes and links
    to nothing.

    Raises OSError.
    """

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(_HIDDEN_PREFIXES)
            and not all(os.path.lexists(os.path.join(parent, name, own)) for own in _OF_RUNS)
        ]
        yield from (Path(parent, name) for name in files if not name.startswith(_HIDDEN_PREFIXES))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(_HIDDEN_PREFIXES) for part in path.parts)


def named(files: Iterable[Path]) -> str:
    """The names of a few files, and how many more there are."""
    names = [file.name for file in files]
    return ", ".join(names[:_SHOWN_NAMES]) + (
        f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
    )
