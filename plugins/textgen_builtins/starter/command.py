"""The command itself."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from textgen import UsageError
from textgen.durable import write_atomic
from textgen_builtins.starter import settings, texts


@click.command("init")
@click.argument("text", required=False, type=click.Path())
@click.option(
    "--pipeline", default=None, metavar="FILE", help="Where to write it; TEXT's name with .toml if not given."
)
@click.option(
    "--minutes", default=1.0, show_default=True, type=click.FloatRange(min=0.05), help="How long a run may take in all."
)
@click.option(
    "--speed",
    type=click.FloatRange(min=1),
    metavar="N",
    help="Characters a second that training with 256 units reads on the machine of the run; this one is tried if it is "
    "not given.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def init(text: str | None, pipeline: str | None, minutes: float, speed: float | None, force: bool) -> None:
    """Write a commented pipeline for your own text, to edit and run.

    TEXT is a text file, JSON lines, or a folder of .txt, .md or .jsonl files; without it the pipeline trains on the
    story that comes with textgen.
    """
    stem = Path(text).resolve().stem if text else "pipeline"
    path = Path(pipeline or f"{stem}.toml")
    facts = texts.STORY if text is None else texts.look_at(text, path.parent)
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another name with --pipeline, or replace it with --force")
    made = starter_pipeline(facts, minutes * 60, settings.measured_speed() if speed is None else speed)
    try:
        write_atomic(path, made.replace("{file}", shlex.quote(str(path))).encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    if facts.remark:
        click.echo(f"textgen: warning: {facts.remark}", err=True)
    click.echo(f"wrote {path}; now: textgen run {shlex.quote(str(path))}", err=True)


def starter_pipeline(facts: texts.TextFacts, seconds: float, speed: float) -> str:
    """The pipeline, in which {file} stands for its own name."""
    chosen = settings.choose(facts.size, seconds, speed)
    made = Path(__file__).with_name("template.toml").read_text(encoding="utf-8")
    for name in ("hidden_size", "embedding_size", "dropout", "input_dropout", "batch_size", "learning_rate"):
        made = made.replace(f"{{{name}}}", f"{getattr(chosen, name):g}")
    made = made.replace("{budget}", f"{seconds:g}s").replace("{corpus}", facts.corpus)
    return made.replace("{expected}", _expected(facts.size, seconds, chosen))


def _expected(size: int, seconds: float, chosen: settings.Settings) -> str:
    passes = f"{chosen.passes:.0f} times" if chosen.passes >= 2 else "once or less"
    room, text = f"{_megabytes(size, chosen):.0f} MB of disk", _short(size)
    return (
        f"# For {text} of text and {seconds:g} seconds on the machine of `textgen init`: the network reads the text\n"
        f"# about {passes}, and the run takes some {room}. More time gives a better model."
    )


def _short(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _megabytes(size: int, chosen: settings.Settings) -> float:
    """A model and two checkpoints, each with counts and weights, the latter also with the optimizer's."""
    weights = 4 * chosen.hidden_size * (chosen.hidden_size + chosen.embedding_size) * 4
    return (3 * min(size * 20, 400e6) + 7 * weights) / 1e6
