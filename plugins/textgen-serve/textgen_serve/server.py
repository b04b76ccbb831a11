"""Runs the application in uvicorn, on sockets of our own."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import click
import uvicorn

from textgen import PluginSet, UsageError
from textgen_serve.app import create_app
from textgen_serve.models import named_runs


def serve(
    runs: Sequence[str],
    plugins: PluginSet,
    *,
    host: str,
    port: int,
    device: str,
    unknown_parameters: str,
) -> None:
    """Serve until a signal. Raises UsageError where the address cannot be taken."""
    app = create_app(
        named_runs(runs),
        plugins=plugins,
        device=device,
        ignore_unknown=unknown_parameters == "ignore",
    )
    with _bound(host, port) as listener:
        url = f"http://{host}:{listener.getsockname()[1]}"
        click.echo(f"textgen: serving at {url}", err=True)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws="none",
        )
        uvicorn.Server(config).run(sockets=[listener])


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address. Raises UsageError."""
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener
