"""Options that several subcommands share, and checks of the paths that they are given."""

from __future__ import annotations

from pathlib import Path

import click

from textgen.errors import UsageError

PAGE_MARK = '<meta name="generator" content="textgen">'
"""Stands at the beginning of every page."""

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the pipeline, as in trainer.batch_size=8. May be given several times.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help='"auto", "cpu", "cuda", "cuda:N" or "mps".',
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def check_page(given: str) -> None:
    """Raise UsageError, before any work, where a page for --html cannot be written, or would
    replace another file than a page with PAGE_MARK.
    """
    path = Path(given)
    is_page = path.is_file() and PAGE_MARK.encode() in path.read_bytes()
    if path.exists() and not is_page:
        cause = f"{path} exists and is not a page of textgen; --html does not replace it"
        raise UsageError(f"{cause}: give another name")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: the folder {path.parent} does not exist")


def write_page(given: str, content: str) -> None:
    """Write a page that `check_page` has let pass, and say so."""
    from textgen.files.durable import write_atomic

    write_atomic(Path(given), content.encode("utf-8", "replace"))
    click.echo(f"textgen: wrote {given}", err=True)
