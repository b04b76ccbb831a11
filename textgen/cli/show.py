"""textgen show."""

from __future__ import annotations

from typing import Any

import click

from textgen.cli.options import check_pipeline, set_option


@click.command("show")
@click.argument("pipeline", type=click.Path())
@set_option
@click.pass_obj
def command(context: Any, pipeline: str, overrides: tuple[str, ...]) -> None:
    """Print a pipeline with every default, and what each key does.

    The output is a pipeline again. If `output` is not given, its own file's name decides the run directory, as it does
    for PIPELINE.
    """
    check_pipeline(pipeline)
    from textgen.pipeline.document import read_document
    from textgen.pipeline.pipeline import make_pipeline
    from textgen.runs.starting import with_start
    from textgen.tools.commented import commented_toml

    document = read_document(pipeline, overrides)
    plugins = context.plugins()
    made = make_pipeline(with_start(document, plugins), plugins)
    click.echo(commented_toml(made, document.tables.get("output")), nl=False)
