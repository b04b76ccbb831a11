"""textgen serve."""

from __future__ import annotations

from typing import Any, cast

import click

from textgen import BuildContext, PluginSet, UsageError
from textgen_serve.options import ServerOptions, server_options


def make_command(context: BuildContext) -> click.Command:
    """The subcommand, with the plugins of the command line."""

    @click.command("serve")
    @click.argument("runs", metavar="[NAME=]RUN...", nargs=-1)
    @server_options
    def command(runs: tuple[str, ...], **given: Any) -> None:
        """Serve each RUN over HTTP with OpenAI's completions API, by its NAME or else its
        folder's.
        """
        plugins = cast("PluginSet", context.plugins)
        if not runs:
            raise UsageError(_no_run(plugins))
        from textgen_serve.app import create_app
        from textgen_serve.models import named_runs
        from textgen_serve.server import listening

        named, options = named_runs(runs), ServerOptions(**given)
        with listening(options) as listener:
            access = listener.access
            app = create_app(named, plugins=plugins, access=access, **options.app_arguments())
            key = f" with the API key {listener.made_key}" if listener.made_key else ""
            listener.serve(app, f"serving {', '.join(named)} at {listener.address}{key}")

    return command


def _no_run(plugins: PluginSet) -> str:
    cause = "no run is given; name one, as in `textgen serve runs/my-novel`"
    if any(offer.name == "desk" for offer in plugins.offers("command")):
        cause += ", or begin with a text by `textgen desk`"
    return cause
