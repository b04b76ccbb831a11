"""The pipeline that `textgen init` writes."""

from __future__ import annotations

import codecs
import json
import os
import shlex
from pathlib import Path

import tomli_w

from textgen.errors import UsageError
from textgen.files import encoding_of_mark, write_atomic

_TEMPLATE = """\
# A textgen pipeline. Run it with:     textgen run {file}
# Every key, with its default:         textgen show {file}
# Every component there is:            textgen plugins --options

seed = 0           # another seed gives another model
device = "auto"    # "cpu", "cuda", "cuda:1", "mps"
# threads = 1      # of the CPU; where other programs use its cores, one is far faster than several

[corpus]
{corpus}

[tokenizer]
type = "char"          # one token per character
# letters_only = true  # keep only a to z and the space: learns faster, writes without punctuation
# lower_case = true

[data]
window_length = 64          # characters the model sees at once in training
validation_fraction = 0.1   # the last tenth is held out: its loss tells how well the model generalises

[model]
type = "rnn"
cell = "lstm"          # "rnn", "gru", "lstm"
hidden_size = 256      # larger learns more, and is slower
layers = 1
dropout = 0.2          # raise it when validation loss rises while training loss falls

[trainer]
type = "adamw"
epochs = {epochs}            # passes over the text
batch_size = {streams}        # places of the text read side by side; fewer make more steps
order = "streams"      # read the text on from window to window
learning_rate = 4e-3

[[sampler]]
type = "temperature"
temperature = 0.8      # lower is safer, higher is wilder, 0 is greedy

[generate]
prompt = ""            # text to continue
max_new_tokens = 500
"""

_SMALLEST_TEXT = 2000
_STORY_BYTES = 87_000
_TEXTS = (".txt", ".md", ".jsonl")  # of a folder, the files with the first of these suffixes that there are
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


def starter_pipeline(text: str | None, folder: Path) -> tuple[str, str]:
    """A commented pipeline for the file or folder `text`, to be put in `folder`; for the embedded story without one.

    With it comes a remark on how the text is encoded, or "" where there is nothing to say. Raises UsageError when there
    is no such text, too little of it, or something other than text.
    """
    corpus, remark, size = _STORY, "", _STORY_BYTES
    if text is not None:
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
        if size < _SMALLEST_TEXT:
            cause = f"{text} has {size:,} bytes, which is too little to learn from"
            raise UsageError(f"{cause}; give some thousands at least")
        corpus = 'type = "file"\n' + tomli_w.dumps({"path": _relative(path, folder)}).strip()
        corpus += "           # a file, a list of files, or a folder of .txt files" + encoding
        if suffix == ".md" and path.is_dir():
            corpus += '\nglob = "**/*.md"'
        elif suffix == ".jsonl":
            corpus += '\ndocuments = "jsonl"    # each line is a JSON object, and a text of its own\n'
            corpus += tomli_w.dumps({"field": _field_of(files[0])}).strip()
    # About 2,000 steps, and at least 20 windows in each stream.
    streams = max(4, min(64, size // (64 * 20)))
    epochs = max(3, min(100, 2000 // max(1, size // (64 * streams))))
    made = _TEMPLATE.replace("{corpus}", corpus).replace("{streams}", str(streams)).replace("{epochs}", str(epochs))
    return made, remark


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
    """The pipeline's lines on how files are encoded, as far as that is sure, and a remark where it is not."""
    found = {file: _encoding_of(file) for file in files}
    names = set(found.values())
    if names <= {"utf-8"}:
        return "", ""
    if len(names) == 1 and "" not in names:
        return f'\nencoding = "{names.pop()}"', ""
    odd = next(file for file, name in found.items() if name != "utf-8")
    what = f"{odd} is not UTF-8" if not found[odd] else f"{odd} is {found[odd]}, and others are not"
    line = '\n# encoding = "cp1252"     # say here how the text is encoded: it is not UTF-8'
    return line, f"{what}; set the option encoding of [corpus], for example to cp1252 or latin-1"


def _encoding_of(file: Path) -> str:
    """ "utf-8", "utf-16" or "utf-32" where the file's bytes leave no doubt, else "". Raises UsageError for no text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with file.open("rb") as opened:
        data = opened.read(_PIECE)
        for magic, what in _NO_TEXTS.items():
            if data.startswith(magic):
                raise UsageError(f"{file} is {what}, not plain text; save it as text first")
        if name := encoding_of_mark(data):
            return name
        try:
            while data:
                decoder.decode(data)
                data = opened.read(_PIECE)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return ""
    return "utf-8"


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write a file that is not there yet. Raises UsageError when it is, or when it cannot be written."""
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another name with --pipeline, or replace it with --force")
    try:
        write_atomic(path, text.replace("{file}", shlex.quote(str(path))).encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
