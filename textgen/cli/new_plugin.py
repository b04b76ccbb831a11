"""textgen new-plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from textgen.plugin.component import KINDS


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What it offers.")
@click.pass_obj
def command(context: Any, name: str, kind: str) -> None:
    """Write a plugin package to a new folder NAME: it installs, passes its tests and runs at once.

    NAME is the name of the distribution, such as textgen-whisper. The component is called what comes after textgen-.
    """
    from textgen.tools.scaffold import write_package

    folder = write_package(name, kind, Path(), context.plugins())
    click.echo(
        f"wrote {folder}; now:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest\n  textgen run pipeline.toml",
        err=True,
    )
