"""What init finds out about a text before anything reads it: its files, their size, and how they are encoded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import attrs
import tomli_w

from textgen import UsageError
from textgen.files import encoding_of_mark

_SMALLEST: Final = 2000  # bytes
_NO_TEXTS: Final = {
    b"%PDF": "a PDF",
    b"PK\3\4": "a ZIP archive, as DOCX, ODT and EPUB files are",
    b"{\\rtf": "an RTF document",
}
_PIECE: Final = 1 << 20
_TEXTS: Final = (".txt", ".md", ".jsonl")  # of a folder, the files with the first of these suffixes that there are
_STORY_BYTES: Final = 87_000
_STORY: Final = """\
type = "story"         # the story that comes with textgen; for your own text:
# type = "file"
# path = "my.txt\""""


@attrs.frozen
class TextFacts:
    """A text: the keys of `[corpus]` for it, its size in bytes, and a remark on its encoding, or ""."""

    corpus: str
    size: int
    remark: str = ""


STORY: Final = TextFacts(_STORY, _STORY_BYTES)
"""The embedded story."""


def look_at(text: str, folder: Path) -> TextFacts:
    """The file or folder `text`, for a pipeline in `folder`. Raises UsageError if there is no text, or too little."""
    path = Path(text)
    if not path.exists():
        raise UsageError(f"{text} does not exist; give a text file, or a folder of them")
    if path.suffix.lower() == ".toml":
        raise UsageError(f"{text} is a pipeline by its name, and init writes one for a text; textgen run {text}")
    files, suffix = ([path], path.suffix.lower()) if path.is_file() else _files_in(path)
    try:
        size = sum(file.stat().st_size for file in files)
        encoding, remark = _encoding(files)
    except OSError as error:
        raise UsageError(f"{error.filename or text} cannot be read: {error.strerror or error}") from error
    if size < _SMALLEST:
        cause = f"{text} has {size:,} bytes, which is too little to learn from"
        raise UsageError(f"{cause}; give some thousands at least")
    corpus = 'type = "file"\n' + tomli_w.dumps({"path": _relative(path, folder)}).strip()
    corpus += "           # a file, a list of files, or a folder"
    if suffix == ".md" and path.is_dir():
        corpus += '\nglob = "**/*.md"'
    elif suffix == ".jsonl":
        corpus += '\ndocuments = "jsonl"    # each line is a JSON object, and a text of its own\n'
        corpus += tomli_w.dumps({"field": _field_of(files[0])}).strip()
    return TextFacts(corpus + encoding, size, remark)


def _files_in(folder: Path) -> tuple[list[Path], str]:
    """The texts of a folder, and their suffix."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    for suffix in _TEXTS:
        if files := [path for path in found if path.suffix.lower() == suffix]:
            return files, suffix
    raise UsageError(f"{folder} holds no file with one of the suffixes {', '.join(_TEXTS)}; give one of its files")


def _field_of(file: Path) -> str:
    """The key of the text in JSON lines: "text", or that of the longest text in the first line."""
    try:
        with file.open(encoding="utf-8-sig") as opened:
            first = json.loads(opened.readline(_PIECE))
        texts = {key: len(value) for key, value in first.items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError):  # a run will say what is wrong
        texts = {}
    return "text" if "text" in texts or not texts else max(texts, key=lambda key: texts[key])


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()


def _encoding(files: list[Path]) -> tuple[str, str]:
    """The line of the pipeline that says how the files are encoded, as far as it is known, and a remark if not."""
    found = {file: _encoding_of(file) for file in files}
    names = set(found.values())
    if names <= {"utf-8"}:
        return "", ""
    if len(names) == 1 and "" not in names:
        return f'\nencoding = "{names.pop()}"', ""
    odd = next(file for file, name in found.items() if name != "utf-8")
    what = f"{odd} is {found[odd]}, and others are not" if found[odd] else f"{odd} is not UTF-8"
    line = '\n# encoding = "cp1252"     # say here how the text is encoded: it is not UTF-8'
    return line, f"{what}; set the option encoding of [corpus], for example to cp1252 or latin-1"


def _encoding_of(file: Path) -> str:
    """ "utf-8", "utf-16" or "utf-32" where the bytes of a file show it, else "". Raises UsageError if it is no text."""
    with file.open("rb") as opened:
        beginning = opened.read(100)
    for magic, what in _NO_TEXTS.items():
        if beginning.startswith(magic):
            raise UsageError(f"{file} is {what}, not plain text; save it as text first")
    if name := encoding_of_mark(beginning):
        return name
    try:
        with file.open(encoding="utf-8") as text:
            while text.read(_PIECE):
                pass
    except UnicodeDecodeError:
        return ""
    return "utf-8"
