"""The command `init`: a pipeline for a text."""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from textgen import Address, UsageError
from textgen.cli import json_option
from textgen.files import write_atomic
from textgen.messages import quoted
from textgen_builtins.corpora.encodings import AUTO
from textgen_builtins.corpora.file_facts import COMPRESSED

_LONGEST_NAME: Final = 100  # bytes
_LACKS_START: Final = (
    "for a text in English, the package textgen-english has a model to start from, which gives "
    "better texts (docs/pretrained.md)"
)
_MINUTES: Final = click.FloatRange(0.05, 100_000)
_MINUTES.name = "number"  # in messages and in --help


@click.command("init")
@click.argument("text", required=False, type=click.Path())
@click.option(
    "--pipeline", metavar="FILE", help="File to write; by default, TEXT's name with .toml."
)
@click.option(
    "--minutes",
    default=1.0,
    show_default=True,
    type=_MINUTES,
    help="Time that a run may take in total.",
)
@click.option("--glob", metavar="PATTERN", help="Files of a folder to read, such as '**/*.py'.")
@click.option(
    "--documents",
    type=click.Choice(["none", "file", "line", "paragraph", "part", "jsonl"]),
    help="What a document, a separate text, is; guessed if not given.",
)
@click.option("--field", metavar="NAME", help="Key of the text in JSON lines.")
@click.option("--encoding", default=AUTO, show_default=True, help="Encoding of the text.")
@click.option(
    "--start",
    metavar="NAME|PATH",
    help="Model to start from: the name of a run that a package offers, a run directory, a file "
    'that a package can read, such as GGUF, or "none"; by default, the model with the lowest '
    "expected loss.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@json_option
@click.pass_obj
def init(
    context: Any,
    /,
    text: str | None,
    pipeline: str | None,
    minutes: float,
    start: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a commented pipeline for your own text, to edit and run.

    TEXT is a text file, a document (Word, ODT, RTF), a book (EPUB), a list of short lines, HTML or
    JSON lines, compressed or not. It can also be a folder of these or of code, or an address
    (https://…). Without TEXT, the pipeline trains on the story that comes with textgen.

    The whole text is read. Messages say what was guessed, and options change it. If a package
    offers a model that knows the language of the text, the pipeline starts from it.

    --json prints what was found in the text, and the time and expected loss of each model.
    """
    from textgen_builtins.starter import recipe, starts, texts

    if math.isnan(minutes):
        raise UsageError("nan is not a number of minutes", argument="minutes", value=minutes)
    path = Path(f"{_stem(text)}.toml") if pipeline is None else Path(pipeline)
    another = "choose another name with --pipeline"
    named = None if text is None else texts.path_of(text)  # it may be the pipeline itself
    if isinstance(named, Path) and path.exists() and path.samefile(named):
        raise UsageError(f"{path} is the text itself; {another}")
    if path.suffix != ".toml":
        raise UsageError(f"{path} is no name of a pipeline; end it with .toml")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; {another}, or replace it with --force")
    if text is None:
        _say("no text is given, so it is the story that comes with textgen")
        facts = texts.story()
    else:
        facts = texts.look_at(text, path.parent, console=sys.stderr, **options)
    seconds = minutes * 60
    trials = starts.Trials(facts, seconds, path.parent, context.plugins, _say)
    found = trials.starts(start)
    chosen = recipe.best(found, seconds)
    if len(found) > 1:
        others = ", ".join(str(each) for each in found if each is not chosen)
        _say(
            f"start: {chosen.name}, with an expected loss of {chosen.loss:.2f}; {others} "
            "(--start chooses another)"
        )
    made = recipe.commented(facts, chosen, found, seconds, quoted(str(path)))
    try:
        write_atomic(path, made.encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    for remark in facts.remarks:
        _say(f"textgen: warning: {remark}")
    if facts.language == "English" and not facts.longest and not starts.named(context.plugins):
        _say(f"textgen: warning: {_LACKS_START}")
    _say(f"wrote {path}; now: textgen run {quoted(str(path))}")
    if as_json:
        made_of = {"seconds": seconds, "start": chosen.name}
        tried = [each.table() for each in found]
        table = {"pipeline": str(path), **facts.table(), **made_of, "starts": tried}
        click.echo(json.dumps(table, indent=2, ensure_ascii=False))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _stem(text: str | None) -> str:
    """The name of a text as one that suits a file, a run and a shell."""
    if text is None:
        return "pipeline"
    named = urlsplit(text).path if Address.matches(text) else str(Path(text).resolve())
    path = Path(named.rstrip("/"))
    stem = (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).stem
    stem = unicodedata.normalize("NFC", stem)  # on macOS, names have letters and marks apart
    plain = re.sub(r"[^\w.+-]+|\.\.+", "-", stem).strip("-_.")
    return plain.encode()[:_LONGEST_NAME].decode(errors="ignore") or "text"
