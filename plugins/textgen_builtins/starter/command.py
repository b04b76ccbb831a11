"""The command `init`: a pipeline for a text, from `template.toml`."""

from __future__ import annotations

import math
import os
import re
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from textgen import UsageError
from textgen.files.durable import write_atomic
from textgen.files.encodings import AUTO
from textgen.pipeline.document import NAME
from textgen.plugin.component import Address
from textgen.visible import byte_count
from textgen.windows import quoted
from textgen_builtins.corpora.file_facts import COMPRESSED
from textgen_builtins.starter import settings

if TYPE_CHECKING:
    from textgen_builtins.starter.pretrained import Pretrained
    from textgen_builtins.starter.texts import TextFacts

_LONGEST_NAME: Final = 100  # bytes
_MOST_NEW: Final = 20_000  # characters of a text
_SHORT: Final = 50_000  # characters
_THE: Final = 0.02  # share of the words of an English text that are "the", at least
_LACKS_START: Final = (
    "for a text in English, the package textgen-english has a model to start from, which gives "
    "better texts (docs/pretrained.md)"
)
_RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # by Windows


@click.command("init")
@click.argument("text", required=False, type=click.Path())
@click.option(
    "--pipeline", metavar="FILE", help="Where to write it; TEXT's name with .toml if not given."
)
@click.option(
    "--minutes",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.05, 100_000),
    help="How long a run may take in all.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=1),
    metavar="N",
    help="Characters a second that training with 256 units reads on the machine of the "
    "run; tried if not given.",
)
@click.option("--glob", metavar="PATTERN", help="Which files of a folder, such as '**/*.py'.")
@click.option(
    "--documents",
    type=click.Choice(["none", "file", "line", "jsonl"]),
    help="What a document is, a text of its own with an end; guessed if not given.",
)
@click.option("--field", metavar="NAME", help="Key of the text in JSON lines.")
@click.option("--encoding", default=AUTO, show_default=True, help="How the text is encoded.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.pass_obj
def init(
    context: Any,
    /,
    text: str | None,
    pipeline: str | None,
    minutes: float,
    speed: float | None,
    force: bool,
    **options: Any,
) -> None:
    """Write a commented pipeline for your own text, to edit and run.

    TEXT is a text file, a Word document, a list of short lines, HTML or JSON lines, compressed or
    not, a folder of them or of code, or an address (https://…). Without TEXT the pipeline trains on
    the story that comes with textgen. The whole text is read. Messages say what was guessed, and
    options change it. If a package offers a model that knows the language of the text, the pipeline
    starts from it.
    """
    from textgen_builtins.starter import pretrained, texts

    if math.isnan(minutes):
        raise UsageError("nan is not a number of minutes", argument="minutes", value=minutes)
    path = Path(f"{_stem(text)}.toml") if pipeline is None else Path(pipeline)
    another = "choose another name with --pipeline"
    if not str(path).isprintable():
        raise UsageError(f"{str(path)!r} has characters that cannot be printed; {another}")
    named = None if text is None else texts.path_of(text)  # it may be the pipeline itself
    if isinstance(named, Path) and path.exists() and path.samefile(named):
        raise UsageError(f"{path} is the text itself; {another}")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; {another}, or replace it with --force")
    if text is None:
        facts = texts.story()
    else:
        facts = texts.look_at(text, path.parent, console=sys.stderr, **options)
    start = pretrained.suited(facts.sample, facts.size, context.plugins())
    made = starter_pipeline(facts, minutes * 60, speed or settings.measured_speed(), start)
    try:
        write_atomic(path, made.replace("{file}", quoted(str(path))).encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    remarks = list(facts.remarks)
    words = facts.sample.lower().split()
    may_be_english = facts.size < _SHORT or words.count("the") > _THE * len(words)
    if words and may_be_english and not facts.longest and not context.plugins().offers("run"):
        remarks.append(_LACKS_START)
    for remark in remarks:
        click.echo(f"textgen: warning: {remark}", err=True)
    click.echo(f"wrote {path}; now: textgen run {quoted(str(path))}", err=True)


def _stem(text: str | None) -> str:
    """A name for the pipeline of a text that suits a file, a run and a shell: the text's own, where
    it does.
    """
    if text is None:
        return "pipeline"
    named = urlsplit(text).path if Address.matches(text) else str(Path(text).resolve())
    path = Path(named.rstrip("/"))
    stem = (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).stem
    stem = unicodedata.normalize("NFC", stem)  # on macOS, names have letters and marks apart
    if not NAME.fullmatch(stem) or ".." in stem or len(os.fsencode(stem)) > _LONGEST_NAME:
        plain = re.sub(r"[^\w.+-]+|\.\.+", "-", stem).strip("-_.")
        stem = plain.encode()[:_LONGEST_NAME].decode(errors="ignore") or "text"
    return f"{stem}-text" if _RESERVED.fullmatch(stem) else stem


def starter_pipeline(
    facts: TextFacts, seconds: float, speed: float, start: Pretrained | None = None
) -> str:
    """The pipeline, in which {file} stands for its own name, for a model to start from if there is
    one.
    """
    made = Path(__file__).with_name("template.toml").read_text(encoding="utf-8")
    chosen: Mapping[str, int | float | str]
    if start is None:
        chosen = settings.choose(facts.size, facts.vocabulary, seconds, speed)
    else:
        made = _tuning(made, start)
        chosen = settings.tune(facts.size, seconds, speed, start)
    expected = f"# For {byte_count(facts.size)} of text and {seconds:.10g} seconds"
    is_all = chosen.get("length") == settings.ALL_PASSES
    expected += "." if is_all else "; more time gives a better model."
    if facts.sample and start is None:
        loss = max(0.01, settings.expected_loss(facts.sample))
        expected += f"\n# Expect a validation loss below {loss:.2f}, by a quick count."
    values = {name: _written(value) for name, value in chosen.items()}
    if start is not None:
        values |= {"start": start.name, "sample_loss": f"{start.loss:.2f}"}
    values = {"length": f"{seconds:.10g}s", **values, "corpus": facts.corpus, "expected": expected}
    values["allowed_length"] = str(settings.allowed_length(facts.sample))
    values["generate"] = _generate(facts.longest)
    return re.sub(r"\{(\w+)\}", lambda key: values.get(key[1], key[0]), made)


def _tuning(template: str, start: Pretrained) -> str:
    """The template for a network that is there, in place of the mixture, and for its tokens if they
    make up every text.
    """
    made = Path(__file__).with_name("tuning.toml").read_text(encoding="utf-8")
    if start.reads_all:
        template = re.sub(r"(?s)\[tokenizer\]\n.*?(?=\[data\])", "", template)
    return re.sub(r"(?s)\[model\]\n.*?(?=\[checkpoint\])", lambda _: made, template)


def _written(value: float | str) -> str:
    """A number as TOML has it, or a text."""
    if isinstance(value, str):
        return value
    return f"{value:_g}" if isinstance(value, float) else f"{value:_}"


def _generate(longest: int) -> str:
    """The keys of `[generate]`: where texts end by themselves, so many and so long that few are
    cut.
    """
    if not longest:
        return 'prompt = ""            # text to continue\nmax_new_tokens = 500'
    limit = min(max(2 * longest, 20), _MOST_NEW)
    return f"""\
prompt = ""            # the beginning of a text; an empty one begins a new one
n = {max(1, min(10, 2000 // longest)):<17}  # texts
distinct = true        # none twice, and none that is in the text already
# each ends by itself; the longest that was read has {longest:,} characters
max_new_tokens = {limit}"""
