"""What init finds out about a text: it reads all of it, as a run with the pipeline it writes will."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import attrs
import tomli_w

from textgen import UsageError
from textgen.documents import DOCUMENT_END
from textgen.errors import CorpusError
from textgen.files.encodings import AUTO, decode
from textgen.plugin.component import Address
from textgen_builtins.corpora.compression import read_bytes
from textgen_builtins.corpora.config import FileConfig
from textgen_builtins.corpora.file_facts import JSON_LINES, inner_suffix
from textgen_builtins.corpora.gutenberg import begins_as_book
from textgen_builtins.corpora.text_files import FileCorpus

_SMALLEST: Final = 2000  # characters
_SAMPLE: Final = 200_000
_STORY_CHARACTERS: Final = 87_000
_STORY_VOCABULARY: Final = 60
_ALPHABET: Final = 5_000_000  # characters of which the different ones are counted
_STORY: Final = """\
type = "story"         # the story that comes with textgen; for your own text:
# type = "file"
# path = "my.txt\""""


@attrs.frozen
class TextFacts:
    """A text: the keys of `[corpus]` for it, its size in characters, what was guessed of it, and its beginning.

    vocabulary  different characters in its first millions
    """

    corpus: str
    size: int
    vocabulary: int
    remarks: tuple[str, ...] = ()
    sample: str = ""


STORY: Final = TextFacts(_STORY, _STORY_CHARACTERS, _STORY_VOCABULARY)
"""The embedded story."""


def look_at(
    text: str,
    folder: Path,
    *,
    encoding: str = AUTO,
    field: str | None = None,
    console: TextIO | None = None,
) -> TextFacts:
    """The file, folder or address `text`, for a pipeline in `folder`.

    encoding, field   as options of the corpus, which are guessed if they are not given
    console           where it is said what a folder holds

    Raises UsageError if there is no text, or too little, and CorpusError if it cannot be read.
    """
    path = path_of(text)
    guessed: dict[Path, str] = {}
    remarks: list[str] = []

    def tell(file: Path, name: str, why: str) -> None:
        if file not in guessed:
            guessed[file] = name
            remarks.append(
                f"{file}: read as {name}, {why}; if that is wrong, give the encoding (--encoding)"
            )

    try:
        config = FileConfig(path, encoding=encoding)
    except ValueError as error:
        raise UsageError(str(error.args[0]), argument="encoding", value=encoding) from error
    try:
        config = _with_documents(config, field, remarks)
        corpus = FileCorpus(config, console=console, tell=tell)
        if config.documents == "none" and _is_book(corpus):
            corpus = attrs.evolve(corpus, config=attrs.evolve(config, gutenberg=True))
            remarks.append(
                "it is a book of Project Gutenberg, and is read without what stands before and after it"
            )
        size, vocabulary, sample = _sized(corpus)
    except CorpusError as error:
        error.exit_code = 2  # nothing was written
        error.argument = (
            "" if error.argument == "documents" else error.argument
        )  # which is no option of init
        raise
    if size < _SMALLEST:
        cause = f"{text} has {size:,} characters, which is too little to learn from"
        raise UsageError(f"{cause}; give some thousands at least")
    config, names = corpus.config, set(guessed.values())
    if len(names) == 1 and len(guessed) == len(corpus.sources()):
        config = attrs.evolve(config, encoding=names.pop())
    table = _table(config, path if isinstance(path, str) else _relative(path, folder))
    return TextFacts(table, size, vocabulary, tuple(remarks), sample)


def _sized(corpus: FileCorpus) -> tuple[int, int, str]:
    """Its characters, how many different ones, and the beginning of the text."""
    size, sample, alphabet = 0, "", set[str]()
    for piece in _pieces(corpus):
        if size < _ALPHABET:
            alphabet.update(piece)
        size += len(piece)
        sample += piece[: _SAMPLE - len(sample)]
    return size, len(alphabet), sample


def path_of(text: str) -> Address | Path:
    """What is named. Raises UsageError where a pipeline cannot name it, or it is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{text!r} is not UTF-8, as a name in a pipeline must be; {_remedy(text)}"
        ) from error
    if Address.matches(text):
        return Address(text)
    path = Path(text)
    if not path.exists():
        raise UsageError(
            f"{text} does not exist; give a text file, a folder of them, or an address (https://…)"
        )
    if path.suffix.lower() == ".toml":
        raise UsageError(
            f"{text} is a pipeline by its name, and init writes one for a text; textgen run {text}"
        )
    return path


def _remedy(name: str) -> str:
    """What to do where a name is not UTF-8, or only the locale is not."""
    try:
        os.fsencode(name).decode()
    except UnicodeError:
        return "rename it"
    return f"in this locale names are {sys.getfilesystemencoding()}, so set PYTHONUTF8=1"


def _with_documents(config: FileConfig, field: str | None, remarks: list[str]) -> FileConfig:
    """The options with documents, where the files are JSON lines: those of a folder only if it has no other texts."""
    as_documents = attrs.evolve(config, documents="jsonl", field=field or "text")
    try:
        file = FileCorpus(config).sources()[0]
    except CorpusError as error:
        try:
            file = FileCorpus(as_documents).sources()[0]
        except CorpusError:
            raise error from None
    suffix = inner_suffix(file)
    if suffix not in (*JSON_LINES, ".json"):
        return config
    lines = _first_lines(file, config.encoding)
    if suffix == ".json" and not _are_objects(lines):
        if lines and lines[0].lstrip().startswith(("[", "{")):
            raise UsageError(_whole_json(file))
        return config
    if suffix == ".json":
        remarks.append(
            f"{file}: read as JSON lines, a document on each, since its first lines are JSON objects"
        )
    if field is None and (guess := _field_of(lines)) != "text":
        remarks.append(
            f"{file}: the text of a line is taken to be its field {guess!r}; if not, give --field"
        )
        return attrs.evolve(as_documents, field=guess)
    return as_documents


def _first_lines(file: Path, encoding: str) -> list[str]:
    """The first two lines, or the only one, without blank ones."""
    text, lines = "", []
    for piece in decode(read_bytes(file), file, encoding, tell=lambda *_: None):
        text += piece
        if "\n" in piece:
            lines = [line for line in text.removeprefix("\ufeff").split("\n") if line.strip()]
        if len(lines) > 2:
            return lines[:2]  # a third has begun, so the second is whole
    return [line for line in text.removeprefix("\ufeff").split("\n") if line.strip()]


def _are_objects(lines: list[str]) -> bool:
    """Whether they are two JSON objects: one alone may as well be a file of another kind."""
    return len(lines) == 2 and all(isinstance(_value(line), dict) for line in lines)


def _whole_json(file: Path) -> str:
    at = file.name.lower().rindex(".json")
    name, compressed = file.name[:at], file.name[at + len(".json") :]
    return (
        f"{file} is JSON, and not lines of JSON; write it as {name}.jsonl{compressed}, with an object on each line, "
        f'such as {{"text": "…"}}, or rename it to {name}.txt{compressed} to take it as it is'
    )


def _field_of(lines: list[str]) -> str:
    """The key of the text in JSON lines: "text", or that of the longest text in the first line."""
    value = _value(lines[0]) if lines else None
    texts = (
        {key: len(item) for key, item in value.items() if isinstance(item, str)}
        if isinstance(value, dict)
        else {}
    )
    return "text" if "text" in texts or not texts else max(texts, key=lambda key: texts[key])


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # reading it will say what is wrong
        return None


def _is_book(corpus: FileCorpus) -> bool:
    """Whether it is one file that has both marks of Project Gutenberg."""
    if len(corpus.sources()) != 1 or not begins_as_book(_pieces(corpus)):
        return False
    try:
        for _ in _pieces(attrs.evolve(corpus, config=attrs.evolve(corpus.config, gutenberg=True))):
            pass
    except CorpusError:
        return False
    return True


def _pieces(corpus: FileCorpus) -> Iterator[str]:
    return (piece for piece in corpus.read() if piece is not DOCUMENT_END)


def _table(config: FileConfig, path: str) -> str:
    """The keys of `[corpus]`, those that are not the defaults."""

    def line(key: str, value: object, comment: str = "") -> str:
        written = tomli_w.dumps({key: value}).strip()
        return f"{written:<22} # {comment}" if comment else written

    lines = [line("type", "file"), line("path", path, "a file, folder, address, or a list of them")]
    if config.documents == "jsonl":
        lines += [line("documents", "jsonl", "each line is a JSON object, and a text of its own")]
        lines += [line("field", config.field)]
    if config.encoding != AUTO:
        lines += [line("encoding", config.encoding)]
    if config.gutenberg:
        lines += [
            line("gutenberg", True, "without what Project Gutenberg puts before and after a book")
        ]
    return "\n".join(lines)


def _relative(path: Path, folder: Path) -> str:
    try:
        relative = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()
    return f"./{relative}" if relative.startswith("~") else relative
