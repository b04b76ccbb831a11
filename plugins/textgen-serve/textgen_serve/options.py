"""Options of commands that start a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click

from textgen.cli import parse_value
from textgen_serve.limits import Limits


@attrs.frozen(kw_only=True)
class ServerOptions:
    """What was given for the options that `server_options` adds, by their names."""

    host: str
    port: int
    uds: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    api_key_file: Path | None
    allow_host: Sequence[str]
    allow_origin: Sequence[str]
    texts: int
    time_limit: float
    grace: int
    unknown_parameters: str
    chat: bool
    routes: Sequence[str]
    device: str

    def app_arguments(self) -> dict[str, Any]:
        """The arguments of `create_app` among them. Raises UsageError."""
        return {
            "device": self.device,
            "limits": Limits(texts=self.texts, seconds=self.time_limit),
            "ignore_unknown": self.unknown_parameters == "ignore",
            "chat": self.chat,
            "routes": [parse_value("--route", Any, route) for route in self.routes],
        }


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of where to listen, whom to answer, and how much."""
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
            help="File of API keys, one per line; clients must send one of them. The variable "
            "TEXTGEN_API_KEY can hold one, too.",
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
        option(
            "--texts",
            default=Limits().texts,
            type=click.IntRange(1),
            help="Maximum number of texts that are generated or wait at one time. A text that "
            "searches with several beams or candidates counts as often. Further requests get "
            "status 429.",
        ),
        option(
            "--time-limit",
            default=Limits().seconds,
            type=click.FloatRange(0, min_open=True),
            help="Maximum number of seconds for a text, waiting included.",
        ),
        option(
            "--grace",
            default=30,
            type=click.IntRange(0),
            help="Seconds that running requests may still take after a signal to stop.",
        ),
        option(
            "--unknown-parameters",
            type=click.Choice(["refuse", "ignore"]),
            default="refuse",
            help="For parameters that this server does not support: refuse the request, or ignore "
            "them and list them in a header of the response.",
        ),
        click.option(
            "--chat",
            is_flag=True,
            help="Answer /v1/chat/completions, too: the contents of the messages, one after the "
            "other, are the prompt.",
        ),
        click.option(
            "--route",
            "routes",
            multiple=True,
            metavar="TYPE",
            help="Add a route of a plugin, as a table of its options. Routes without required "
            "options are always there. May be repeated.",
        ),
        option("--device", default="auto", help="Where to compute."),
    )
    for add in reversed(options):
        command = add(command)
    return command
