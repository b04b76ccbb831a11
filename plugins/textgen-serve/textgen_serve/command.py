"""textgen serve."""

from __future__ import annotations

from typing import Any, cast

import click

from textgen import BuildContext, PluginSet


def make_command(context: BuildContext) -> click.Command:
    """The subcommand, with the plugins of the command line."""

    @click.command("serve")
    @click.argument("runs", metavar="[NAME=]RUN...", nargs=-1, required=True)
    @click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
    @click.option("--port", default=8000, show_default=True, help="Port; 0 takes a free one.")
    @click.option("--device", default="auto", show_default=True, help="Where to compute.")
    @click.option(
        "--unknown-parameters",
        type=click.Choice(["refuse", "ignore"]),
        default="refuse",
        show_default=True,
        help="Refuse parameters that have no equal here, or report them in a header.",
    )
    def command(runs: tuple[str, ...], **options: Any) -> None:
        """Serve each RUN over HTTP, by its NAME or else its folder's: OpenAI's completions API, and a page at /."""
        from textgen_serve.server import serve

        serve(runs, cast("PluginSet", context.plugins), **options)

    return command
