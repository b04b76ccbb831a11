"""textgen init."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command("init")
@click.argument("text", required=False, type=click.Path())
@click.option(
    "--pipeline", default=None, metavar="FILE", help="Where to write it; TEXT's name with .toml if not given."
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def command(text: str | None, pipeline: str | None, force: bool) -> None:
    """Write a commented pipeline for your own text, to edit and run.

    TEXT is a text file, JSON lines, or a folder of .txt, .md or .jsonl files; without it the pipeline trains on the
    story that comes with textgen.
    """
    from textgen.tools.starter import starter_pipeline, write_new

    stem = Path(text).resolve().stem if text else "pipeline"
    path = Path(pipeline or f"{stem}.toml")
    made, remark = starter_pipeline(text, path.parent)
    write_new(path, made, force=force)
    if remark:
        click.echo(f"textgen: warning: {remark}", err=True)
    click.echo(f"wrote {path}; now: textgen run {shlex.quote(str(path))}", err=True)
