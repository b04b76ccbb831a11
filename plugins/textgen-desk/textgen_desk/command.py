"""textgen desk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from textgen import BuildContext, PluginSet
from textgen_serve.options import ServerOptions, server_options


def make_command(context: BuildContext) -> click.Command:
    """The subcommand, with the plugins of the command line."""

    @click.command("desk")
    @click.argument("runs", metavar="[[NAME=]RUN...]", nargs=-1)
    @click.option(
        "--folder",
        type=click.Path(path_type=Path),
        help="Without RUN: folder of texts, runs and documents; by default, runs/.",
    )
    @click.option(
        "--train/--no-train",
        default=None,
        help="Without RUN: whether the desk takes texts and trains; by default, only if no other "
        "machine can reach it.",
    )
    @server_options
    def command(
        runs: tuple[str, ...], folder: Path | None, train: bool | None, **given: Any
    ) -> None:
        """Open a desk in the browser: it takes your text, trains a model on it, lists what is in
        the folder, and has a page to write with. With RUNs, open that page for these alone. The
        API of `textgen serve` is there in any case.
        """
        from textgen_desk.server import serve

        plugins = cast("PluginSet", context.plugins)
        serve(runs, folder, train, plugins, ServerOptions(**given))

    return command
