"""Serves runs over HTTP with OpenAI's completions API, as a command of textgen.

`textgen_serve.app.create_app` makes the ASGI application for other servers. Starlette and uvicorn
are imported when the command runs, never by listing the plugins.
"""

from __future__ import annotations

import attrs
import click

from textgen import BuildContext, Component, hookimpl


@attrs.frozen
class ServeConfig:
    """Serves runs over HTTP with OpenAI's completions API."""


def build(config: ServeConfig, context: BuildContext) -> click.Command:
    """The command, for the plugins of this engine."""
    from textgen_serve.command import make_command

    return make_command(context)


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `serve`."""
    return [Component("serve", ServeConfig, build)]
