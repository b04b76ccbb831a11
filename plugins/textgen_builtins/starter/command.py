"""The command itself."""

from __future__ import annotations

import itertools
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
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
    from textgen_builtins.starter.texts import TextFacts

_LONGEST_NAME: Final = 100  # bytes
_LEAST_MINUTES: Final = 0.05
_MOST_MINUTES: Final = 100_000
_COUNTS: Final = 50  # bytes of the counts for a character: 30 of source code, 55 of a story
_OTHERS: Final = (
    150  # weights for each unit besides those of the cells: of the tokens, on both sides
)
_MOST_COUNTS: Final = 200_000_000  # bytes: rare ones are left out of more
_COUNTING: Final = """
[trainer.second]
type = "count"
max_tokens = {:_}   # that are counted, from many places of the text; 0 counts all, and takes longer
"""
_HOLDING_OUT: Final = (
    "max_validation_tokens = {:_}   # of it that are read, in stretches from 16 places of it\n"
)
_WRITTEN: Final = 10_000_000  # bytes of checkpoints at most for each second of training, which takes a hundredth of it
_MOST_NEW: Final = 20_000  # characters of a text
_RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # by Windows


def _minutes(given: str) -> float:
    """A number of minutes that makes a budget."""
    try:
        minutes = float(given)
    except ValueError:
        raise click.BadParameter(
            f"{given!r} is not a number of minutes, such as 5 or 0.5"
        ) from None
    if not _LEAST_MINUTES <= minutes <= _MOST_MINUTES:
        raise click.BadParameter(
            f"{given} is not between {_LEAST_MINUTES:g} and {_MOST_MINUTES:,} minutes"
        )
    return minutes


@click.command("init")
@click.argument("text", required=False, type=click.Path())
@click.option(
    "--pipeline",
    default=None,
    metavar="FILE",
    help="Where to write it; TEXT's name with .toml if not given.",
)
@click.option(
    "--minutes",
    default=1.0,
    show_default=True,
    type=_minutes,
    metavar="NUMBER",
    help="How long a run may take in all.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=1),
    metavar="N",
    help="Characters a second that training with 256 units reads on the machine of the run; this one is tried if it is "
    "not given.",
)
@click.option("--glob", metavar="PATTERN", help="Which files of a folder, such as '**/*.py'.")
@click.option(
    "--documents",
    type=click.Choice(["none", "file", "line", "jsonl"]),
    help="What a text of its own is, which ends where it ends; guessed if not given.",
)
@click.option("--field", metavar="NAME", help="Key of the text in JSON lines.")
@click.option("--encoding", default=AUTO, show_default=True, help="How the text is encoded.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def init(
    text: str | None,
    pipeline: str | None,
    minutes: float,
    speed: float | None,
    force: bool,
    **options: Any,
) -> None:
    """Write a commented pipeline for your own text, to edit and run.

    TEXT is a text file, a list of short lines, HTML or JSON lines, compressed or not, a folder of them or of code, or
    an address (https://…); without it the pipeline trains on the story that comes with textgen. It is read to the
    end, so that a run can read it too. What is guessed of it is said, and an option says it otherwise.
    """
    from textgen_builtins.starter import texts

    path = Path(f"{_stem(text)}.toml") if pipeline is None else Path(pipeline)
    if not str(path).isprintable():
        raise UsageError(
            f"{str(path)!r} has characters that cannot be printed; choose another name with --pipeline"
        )
    named = (
        texts.path_of(text) if text is not None else None
    )  # first: it may be the pipeline itself
    if isinstance(named, Path) and path.exists() and path.samefile(named):
        raise UsageError(f"{path} is the text itself; choose another name with --pipeline")
    if path.exists() and not force:
        raise UsageError(
            f"{path} exists; choose another name with --pipeline, or replace it with --force"
        )
    facts = (
        texts.STORY
        if text is None
        else texts.look_at(text, path.parent, console=sys.stderr, **options)
    )
    made = starter_pipeline(
        facts, minutes * 60, settings.measured_speed() if speed is None else speed
    )
    try:
        write_atomic(path, made.replace("{file}", quoted(str(path))).encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    for remark in facts.remarks:
        click.echo(f"textgen: warning: {remark}", err=True)
    click.echo(f"wrote {path}; now: textgen run {quoted(str(path))}{_elsewhere(path)}", err=True)


def _stem(text: str | None) -> str:
    """A name for the pipeline of a text that suits a file, a run and a shell: the text's own, where it does."""
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


def _elsewhere(path: Path) -> str:
    """The option that keeps a run of that name that is there already, or ""."""
    names = itertools.chain([path.stem], (f"{path.stem}-{number}" for number in itertools.count(2)))
    free = next(name for name in names if not Path("runs", name).exists())
    return "" if free == path.stem else f" --output {quoted(f'runs/{free}')}"


def starter_pipeline(facts: TextFacts, seconds: float, speed: float) -> str:
    """The pipeline, in which {file} stands for its own name."""
    chosen = settings.choose(facts.size, facts.vocabulary, seconds, speed)
    made = Path(__file__).with_name("template.toml").read_text(encoding="utf-8")
    for name, value in attrs.asdict(chosen).items():
        made = made.replace(f"{{{name}}}", f"{value:g}")
    made = made.replace("{budget}", f"{seconds:.10g}s").replace("{corpus}", facts.corpus)
    interval = max(2, _sizes(facts.size, chosen)[0] / _WRITTEN)
    made = made.replace("{interval}", f"{interval:.0f}")
    made = made.replace(
        "{holding_out}", _HOLDING_OUT.format(chosen.held_out) if chosen.held_out else ""
    )
    made = made.replace(
        "{counting}", _COUNTING.format(chosen.max_tokens) if chosen.max_tokens else ""
    )
    made = made.replace("{generate}", _generate(facts.longest))
    return made.replace("{expected}", _expected(facts, seconds, chosen))


def _generate(longest: int) -> str:
    """The keys of `[generate]`: where texts end by themselves, so many and so long that few are cut."""
    if not longest:
        return 'prompt = ""            # text to continue\nmax_new_tokens = 500'
    limit = min(max(2 * longest, 20), _MOST_NEW)
    return f"""\
prompt = ""            # the beginning of a text; an empty one begins a new one
n = {max(1, min(10, 2000 // longest)):<17}  # texts
max_new_tokens = {limit:<4}  # each ends by itself; the longest that was read has {longest:,} characters"""


def _expected(facts: TextFacts, seconds: float, chosen: settings.Settings) -> str:
    read = (
        f"the text\n# about {chosen.passes:.0f} times"
        if chosen.passes >= 2
        else f"some\n# {byte_count(int(chosen.passes * facts.size))} of it"
    )
    room, text = f"{byte_count(_sizes(facts.size, chosen)[1])} of disk", byte_count(facts.size)
    return (
        f"# For {text} of text and {seconds:.10g} seconds on the machine of `textgen init`: the network reads {read}"
        f" if nothing else runs there, and the run takes up to some {room}.\n"
        f"# {_loss(facts.sample)}More time gives a better model."
    )


def _loss(sample: str) -> str:
    """What the validation loss may be, by a quick count."""
    if not sample:
        return ""
    loss = max(0.01, settings.counted_loss(sample))
    return f"Expect a validation loss below {loss:.2f}, which a quick count gives.\n# "


def _sizes(size: int, chosen: settings.Settings) -> tuple[int, int]:
    """Bytes of a checkpoint: counts, and weights and the optimizer's two of each; and of a model with four of them.

    Three are the last ones, and one is the best.
    """
    weights = 4 * (settings.weights(chosen.hidden_size) + _OTHERS * chosen.hidden_size)
    counts = min((chosen.max_tokens or size) * _COUNTS, _MOST_COUNTS)
    checkpoint = counts + 3 * weights
    return checkpoint, counts + weights + 4 * checkpoint
