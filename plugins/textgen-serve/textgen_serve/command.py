"""textgen serve."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from textgen import BuildContext, PluginSet
from textgen.cli import parse_value


def _address(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of where to listen, and to whom to answer."""
    path, option = click.Path(path_type=Path), partial(click.option, show_default=True)
    options = (
        option(
            "--host",
            default="127.0.0.1",
            help="Address to listen on. Any but loopback needs an API key; one is made and "
            "printed if none is given.",
        ),
        option(
            "--port", default=8000, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
        ),
        click.option(
            "--uds", type=path, help="Listen on a Unix socket that only this user can open."
        ),
        click.option("--tls-cert", type=path, help="Certificate chain, as PEM."),
        click.option("--tls-key", type=path, help="Its private key, as PEM."),
        click.option(
            "--api-key-file",
            type=path,
            help="Keys, one a line, of which clients need one. The variable TEXTGEN_API_KEY "
            "holds one, too.",
        ),
        click.option(
            "--allow-host", multiple=True, help="Name that clients may use for this machine."
        ),
        click.option(
            "--allow-origin",
            multiple=True,
            help="Origin of web pages that may use this server, as in https://example.org; * is "
            "any.",
        ),
    )
    for add in reversed(options):
        command = add(command)
    return command


def make_command(context: BuildContext) -> click.Command:
    """The subcommand, with the plugins of the command line."""
    option = partial(click.option, show_default=True)

    @click.command("serve")
    @click.argument("runs", metavar="[[NAME=]RUN...]", nargs=-1)
    @_address
    @click.option(
        "--folder",
        type=click.Path(path_type=Path),
        help="Without RUN: where the desk keeps texts, runs and documents; runs/ if not given.",
    )
    @click.option(
        "--train/--no-train",
        default=None,
        help="Without RUN: whether the desk takes texts and trains; if not given, only where this "
        "machine alone is listened to.",
    )
    @option(
        "--texts",
        default=2048,
        type=click.IntRange(1),
        help="Texts that are generated or wait at one time, each counted as often as it has lanes; "
        "further requests get status 429.",
    )
    @option(
        "--time-limit",
        default=600.0,
        type=click.FloatRange(0, min_open=True),
        help="Seconds after which a text ends.",
    )
    @option(
        "--grace",
        default=30,
        type=click.IntRange(0),
        help="Seconds that running requests have to end after a signal.",
    )
    @option(
        "--unknown-parameters",
        type=click.Choice(["refuse", "ignore"]),
        default="refuse",
        help="Refuse parameters that have no equal here, or report them in a header.",
    )
    @click.option(
        "--chat",
        is_flag=True,
        help="Answer /v1/chat/completions, too: the contents of the messages, one after the other, "
        "are the prompt.",
    )
    @click.option(
        "--route",
        "routes",
        multiple=True,
        metavar="TYPE",
        help="A route of a plugin with its options, as a table: those that need none are there in "
        "any case. May be repeated.",
    )
    @option("--device", default="auto", help="Where to compute.")
    def command(runs: tuple[str, ...], routes: tuple[str, ...], **options: Any) -> None:
        """Serve each RUN over HTTP, by its NAME or else its folder's: OpenAI's completions API, and
        a page at /. Without RUN the page is a desk: it takes your text, trains a model on it, and
        lists what is in the folder.
        """
        from textgen_serve.server import serve

        tables = [parse_value("--route", Any, route) for route in routes]
        serve(runs, cast("PluginSet", context.plugins), routes=tables, **options)

    return command
