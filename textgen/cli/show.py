"""textgen show."""

from __future__ import annotations

from typing import Any

import click

from textgen.cli.options import check_pipeline, set_option


@click.command("show")
@click.argument("pipeline", type=click.Path())
@set_option
@click.pass_obj
def command(settings: Any, pipeline: str, overrides: tuple[str, ...]) -> None:
    """Print a pipeline with every default, and what each key does.

    The output is a pipeline again.
    """
    check_pipeline(pipeline)
    from textgen.commented import commented_toml
    from textgen.config import make_pipeline
    from textgen.document import read_document
    from textgen.plugins import PluginSet

    document = read_document(pipeline, overrides)
    plugins = PluginSet.discover(disable={*settings.disable, *document.disabled_plugins()})
    click.echo(commented_toml(make_pipeline(document, plugins)), nl=False)
