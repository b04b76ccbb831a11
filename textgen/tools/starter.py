"""The pipeline that `textgen init` writes."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from string import Template

import tomli_w

from textgen.errors import UsageError
from textgen.files import encoding_of_mark, write_atomic

_SMALLEST_TEXT = 2000
_STORY_BYTES = 87_000
_STORY = """\
type = "story"         # the story that comes with textgen; for your own text:
# type = "file"
# path = "my.txt\""""
_NO_TEXTS = {
    b"%PDF": "a PDF",
    b"PK\3\4": "a ZIP archive, as DOCX, ODT and EPUB files are",
    b"{\\rtf": "an RTF document",
}
_PIECE = 1 << 20


def starter_pipeline(text: str | None, path: Path) -> tuple[str, str]:
    """A commented pipeline at `path` for the file or folder `text`; for the built-in story without one.

    Returned with a remark on the text's encoding, or "". Raises UsageError if there is no such text, too little of it,
    or something other than text.
    """
    corpus, remark, size = _STORY, "", _STORY_BYTES
    if text is not None:
        given = Path(text)
        if not given.exists():
            raise UsageError(f"{text} does not exist; give a text file, or a folder of them")
        if given.suffix.lower() == ".toml":
            raise UsageError(f"{text} is a pipeline by its name, and init writes one for a text; textgen run {text}")
        files = [given] if given.is_file() else sorted(file for file in given.rglob("*.txt") if file.is_file())
        try:
            size = sum(file.stat().st_size for file in files)
            encoding, remark = _encoding(files)
        except OSError as error:
            raise UsageError(f"{error.filename or text} cannot be read: {error.strerror or error}") from error
        if size < _SMALLEST_TEXT:
            cause = f"{text} has {size:,} bytes, which is too little to learn from"
            raise UsageError(f"{cause}; give some thousands at least")
        corpus = 'type = "file"\n' + tomli_w.dumps({"path": _relative(given, path.parent)}).strip()
        corpus += "           # a file, a list of files, or a folder of .txt files" + encoding
    # About 2,000 steps, and at least 20 windows in each stream.
    streams = max(4, min(64, size // (64 * 20)))
    epochs = max(3, min(100, 2000 // max(1, size // (64 * streams))))
    template = Template(Path(__file__).with_name("starter.toml.template").read_text(encoding="utf-8"))
    file = shlex.quote(str(path))
    return template.substitute(file=file, corpus=corpus, streams=streams, epochs=epochs), remark


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


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write a file, which must be new unless `force`. Raises UsageError, also if it cannot be written."""
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another name with --pipeline, or replace it with --force")
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
