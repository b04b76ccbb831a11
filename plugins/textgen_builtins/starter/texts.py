"""Facts about a text, for init: it reads all of it, as a run with the pipeline it writes
will.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal, TextIO, TypeAlias

import attrs

from textgen import Address, UsageError
from textgen.errors import CorpusError
from textgen.messages import nearest_file
from textgen_builtins.corpora.config import FileConfig
from textgen_builtins.corpora.encodings import AUTO
from textgen_builtins.corpora.file_facts import JSON_LINES, inner_suffix
from textgen_builtins.corpora.gutenberg import is_book
from textgen_builtins.corpora.plugin import STORY
from textgen_builtins.corpora.separated import SIGNS
from textgen_builtins.corpora.text_files import FileCorpus
from textgen_builtins.corpora.wrapped_lines import width_of

Documents: TypeAlias = Literal["none", "file", "line", "paragraph", "part", "jsonl"]
_MIN_CHARACTERS: Final = 2000  # characters
_SAMPLE: Final = 5_000_000  # characters that are held
_FEWEST_FILES: Final = 10  # of a folder of documents
_LARGEST_FILE: Final = 50_000  # bytes of its files, on average
_FEWEST_LINES: Final = 50  # of a list
_LONGEST_LINE: Final = 300  # characters: a paragraph of prose in one line is often longer
_GOES_ON: Final = (
    ",;:-\N{EN DASH}\N{EM DASH}"  # the end of a line of verse, or of a part of a sentence
)
_ODD_LINES: Final = 0.02  # share of lines that a list may have of those that lists do not have
_SPEAKER: Final = re.compile(  # after the time of a message; names have emoji too
    r"([\[(]?\d[\d:./, \u202fAPMapm-]*[\])]? ?)?(<[^>\n]{1,25}>:?|[^\s:<][^:\n]{0,24}:) \S"
)
_MOST_SPEAK: Final = 0.7  # share of the lines of a conversation that name a speaker
_LONGEST_PART: Final = 3000  # characters of a poem or note, on average
_SHORT_LINE: Final = 50  # characters of a line of verse
_SHOWN_CHARACTERS: Final = 300  # characters of its beginning
_COMMON_WORDS: Final = {  # words of which texts in a language are full, and those in others are not
    "Dutch": "de het een van en niet",
    "English": "the and of to was that",
    "French": "le la les et des pas",
    "German": "der die und das nicht zu",
    "Italian": "il che di non un gli",
    "Polish": "nie się na że jest z",
    "Portuguese": "o não uma que os do",
    "Russian": "и не на что он в",
    "Spanish": "el los que y una por",
    "Swedish": "och att det som på inte",
}
_MOST_WORDS: Final = 20_000
_SAMPLE_OF_STYLE: Final = 1_000_000  # characters
# No sign is tried twice, so that the time is linear.
_SENTENCE: Final = re.compile(r"""(?<![.!?…])[.!?…]++["'”\u2019»)]*+\s+|\n\s*\n""")
_SPEECH: Final = re.compile('“[^“”\n]*”|"[^"\n]*"|«[^«»\n]*»|„[^„“\n]*“')
_COMMON_SHARE: Final = 0.06  # of the words of a text, at least


@attrs.frozen
class TextFacts:
    """A text, as it was read and guessed.

    corpus      the table of a pipeline that reads it
    size        in characters
    vocabulary  number of different characters in the sample
    sample      its beginning
    longest     characters of the longest document; 0 if the text is not read as documents
    documents   number of documents, or 0
    """

    corpus: dict[str, Any]
    size: int
    vocabulary: int
    remarks: tuple[str, ...] = ()
    sample: str = ""
    longest: int = 0
    documents: int = 0

    @property
    def language(self) -> str:
        """The name of its language in English, by its commonest words; "" for another."""
        words = re.findall(r"\w+", self.sample[: 10 * _MOST_WORDS].lower())[:_MOST_WORDS]
        counts = Counter(words)
        shares = {
            name: sum(counts[word] for word in common.split())
            for name, common in _COMMON_WORDS.items()
        }
        best = max(shares, key=lambda name: shares[name])
        return best if shares[best] > _COMMON_SHARE * len(words) else ""

    def table(self) -> dict[str, Any]:
        """The facts in JSON."""
        table = attrs.asdict(self, filter=attrs.filters.exclude("corpus", "sample"))
        begins = self.sample[:_SHOWN_CHARACTERS]
        return {**table, **style_of(self.sample), "language": self.language, "begins": begins}


def style_of(text: str) -> dict[str, float]:
    """The mean number of words of a sentence, and the share of characters in quotation marks."""
    text = text[:_SAMPLE_OF_STYLE]
    words = [len(re.findall(r"\w+", sentence)) for sentence in _SENTENCE.split(text)]
    spoken = sum(map(len, _SPEECH.findall(text)))
    mean = statistics.fmean(filter(None, words)) if any(words) else 0.0
    return {"sentence_words": mean, "speech": spoken / max(1, len(text))}


def story() -> TextFacts:
    """The embedded story."""
    return attrs.evolve(_measured(FileCorpus(FileConfig(STORY))), corpus={"type": "story"})


def look_at(
    text: str,
    folder: Path,
    *,
    glob: str | None = None,
    documents: Documents | None = None,
    field: str | None = None,
    encoding: str = AUTO,
    console: TextIO | None = None,
) -> TextFacts:
    """The file, folder or address `text`, for a pipeline in `folder`.

    glob, documents, field, encoding   as options of the corpus; all but the last are guessed if not
                                       given
    console                            where it is said what a folder holds

    Raises UsageError if there is no text, or too little, and CorpusError if it cannot be read.
    """
    path = path_of(text)
    config, remarks = FileConfig(path), list[str]()
    options: dict[str, Any] = {"glob": glob, "encoding": encoding}
    for name, value in options.items():
        try:
            config = attrs.evolve(config, **{name: value})
        except ValueError as error:
            raise UsageError(str(error.args[0]), argument=name, value=value) from error
    try:
        config = _guessed(config, documents, field, remarks)
        corpus = FileCorpus(config, console=console)
        facts = _measured(corpus)
        if config.documents == "none" and len(corpus.sources()) == 1 and is_book(facts.sample):
            config = attrs.evolve(config, gutenberg=True)
            facts = _measured(attrs.evolve(corpus, config=config, console=None))
            remarks.append(
                "a book of Project Gutenberg is read without what stands before and after it"
            )
        if config.documents in ("none", "file") and (width := width_of(facts.sample)):
            config = attrs.evolve(config, wrapped_at=width)
            facts = _measured(attrs.evolve(corpus, config=config, console=None))
            remarks.append(f"its lines are broken at {width} characters, and are joined")
    except CorpusError as error:
        error.exit_code = 2  # nothing was written
        raise
    if facts.size < _MIN_CHARACTERS:
        raise UsageError(
            f"{text} has {facts.size:,} characters, which is too little to learn from; give some "
            "thousands at least"
        )
    chosen = {
        key: value
        for key, value in attrs.asdict(config, recurse=False).items()
        if value != getattr(FileConfig(path), key)
    }
    named = path if isinstance(path, str) else relative(path, folder)
    table = {"type": "file", "path": named, **chosen}
    return attrs.evolve(facts, corpus=table, remarks=tuple(remarks))


def path_of(text: str) -> Address | Path:
    """Path that is named. Raises UsageError where a pipeline cannot name it, or it is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        cause = f"{text!r} is not UTF-8, as a name in a pipeline must be"
        raise UsageError(f"{cause}; rename it, or set PYTHONUTF8=1") from error
    if Address.matches(text):
        return Address(text)
    path = Path(text)
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{text} is a link to {os.readlink(path)}, which does not exist")
    if not path.exists():
        advice = nearest_file(path) or "give a text file, a folder, or an address (https://…)"
        raise UsageError(f"{text} does not exist; {advice}")
    if path.suffix.lower() == ".toml":
        raise UsageError(
            f"{text} is a pipeline by its name, and init writes one for a text; textgen run {text}"
        )
    return path


def _measured(corpus: FileCorpus) -> TextFacts:
    """The text read to its end. In the sample, a line break stands after each document."""
    size = length = longest = documents = held = 0
    sample: list[str] = []
    for piece in corpus.read():
        if isinstance(piece, str):
            size, length = size + len(piece), length + len(piece)
        else:
            documents += length > 0
            longest, length = max(longest, length), 0
            piece = "\n"
        if held < _SAMPLE:
            sample.append(piece)
            held += len(piece)
    text = "".join(sample)
    characters = len(set(text))
    return TextFacts({}, size, characters, sample=text, longest=longest, documents=documents)


def _guessed(
    config: FileConfig, documents: Documents | None, field: str | None, remarks: list[str]
) -> FileConfig:
    """The options for what the files are, by their names, their sizes, and how the first begins."""
    if documents is None and field is not None:
        documents = "jsonl"
    files = FileCorpus(attrs.evolve(config, documents=documents or "none")).sources()
    alone = FileConfig(files[0], encoding=config.encoding)
    beginning = str(next(FileCorpus(alone).read(), ""))
    documents = documents or _documents(files, beginning, remarks)
    if documents == "jsonl" and field is None:
        field = _field_of(beginning)
        if field != "text":
            remarks.append(
                f"{files[0]}: the text of a line is taken to be its field {field!r}; if "
                f"not, give --field"
            )
    return attrs.evolve(config, documents=documents, field=field or "text")


def _documents(files: list[Path], beginning: str, remarks: list[str]) -> Documents:
    """The kind of documents, if the files are documents or hold some."""
    file, suffix = files[0], inner_suffix(files[0])
    lines = beginning.strip("\n").split("\n")
    sizes = [each.stat().st_size for each in files]
    remedy = "if it is one text, give --documents none"
    if suffix in JSON_LINES:
        return "jsonl"
    if len(files) >= _FEWEST_FILES and statistics.mean(sizes) <= _LARGEST_FILE:
        remarks.append(f"each of the {len(files):,} files is read as a text of its own; {remedy}")
        return "file"
    if len(files) > 1:
        return "none"
    if suffix == ".json":
        if all(isinstance(_json(line), dict) for line in lines[:2]):
            return "jsonl"
        raise UsageError(
            f"{file} is not lines of JSON; write a .jsonl file with an object on each line, such "
            'as {"text": "…"}, or rename it to .txt to take it as it is'
        )
    speakers = [spoken for line in lines if (spoken := _SPEAKER.match(line))]
    if len(speakers) > _MOST_SPEAK * len(lines):
        remarks.append(
            f"{file}: a conversation by its lines, read as one text, so that a line answers the "
            "one before; if each is a text of its own, give --documents line"
        )
        if sum(spoken[1] is not None for spoken in speakers) > _MOST_SPEAK * len(lines):
            remarks.append(
                f"{file}: the times at the beginning of its lines are learnt and written, too; "
                "take them out of a copy if they are not wanted"
            )
    elif suffix in (".csv", ".tsv") or _is_list(lines):
        remarks.append(f"{file}: each of its short lines is read as a text of its own; {remedy}")
        if suffix in (".csv", ".tsv"):
            remarks.append(
                f"{file}: all columns are learnt, and the names in the first line; if the text is "
                "in one, save that alone as .txt"
            )
        return "line"
    elif _has_parts(lines):
        remarks.append(
            f"{file}: what stands between its lines of signs or two empty lines is read as a text "
            f"of its own; {remedy}"
        )
        return "part"
    elif _is_verse(lines) and lines.count("") >= 2 * _FEWEST_FILES:
        remarks.append(
            f"{file}: if what stands between its empty lines are texts of their own, such as poems,"
            " give --documents paragraph, and a model learns to end them"
        )
    return "none"


def _has_parts(lines: list[str]) -> bool:
    """Whether a text has many short parts, between lines of signs, or of verse between two empty
    lines and more.
    """
    signs = sum(SIGNS.fullmatch(line) is not None for line in lines)
    if signs >= _FEWEST_FILES and len("".join(lines)) < _LONGEST_PART * signs:
        return True
    gaps = sum(not any(pair) for pair in itertools.pairwise(lines))
    return _is_verse(lines) and gaps >= _FEWEST_FILES


def _is_verse(lines: list[str]) -> bool:
    full = [*filter(None, lines)] or [""]
    return statistics.median(map(len, full)) < _SHORT_LINE and len(lines) < 2.5 * len(full)


def _is_list(lines: list[str]) -> bool:
    """Whether lines are the items of a list: short, and none goes on in the next one, as those of
    prose and verse do.
    """
    if len(lines) < _FEWEST_LINES or max(map(len, lines)) > _LONGEST_LINE:
        return False
    others = sum(not line.strip() or line[0].isspace() or line[-1] in _GOES_ON for line in lines)
    return others <= _ODD_LINES * len(lines)


def _field_of(beginning: str) -> str:
    """The key of the text in JSON lines: "text", or that of the longest text in the first line."""
    value = _json(beginning.lstrip().partition("\n")[0])
    texts = (
        {key: item for key, item in value.items() if isinstance(item, str)}
        if isinstance(value, dict)
        else {}
    )
    return "text" if "text" in texts or not texts else max(texts, key=lambda key: len(texts[key]))


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # reading it will say what is wrong
        return None


def relative(path: Path, folder: Path) -> str:
    """A path as a pipeline in a folder names it; `..` leaves the folder that a link is to."""
    whole = path.absolute()  # of ".", it has a name
    place = whole.parent.resolve() / whole.name
    try:
        made = Path(os.path.relpath(place, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return place.as_posix()
    return f"./{made}" if made.startswith("~") else made
