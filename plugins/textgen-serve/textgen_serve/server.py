"""Runs an application in uvicorn, on a socket of our own."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs
import click
import uvicorn
from starlette.types import ASGIApp

from textgen import UsageError
from textgen_serve.errors import logger
from textgen_serve.guard import Access
from textgen_serve.options import ServerOptions
from textgen_serve.protocol import BoundedProtocol

KEY_VARIABLE = "TEXTGEN_API_KEY"


@attrs.frozen(kw_only=True)
class Listener:
    """A socket that is bound to an address, for an application to be served on.

    address   as clients have it: a URL, or the path of a Unix socket
    is_local  whether this machine alone can reach it
    access    who may use the application
    made_key  the API key that was made because none was given; "" where none was made
    """

    address: str
    is_local: bool
    access: Access
    made_key: str
    _socket: socket.socket
    _keys: list[str]
    _options: ServerOptions

    def serve(self, app: ASGIApp, said: str) -> None:
        """Print what is served, and serve it until a signal. Raises UsageError for a certificate
        that cannot be used.
        """
        options = self._options
        config = _configured(app, options.grace, options.tls_cert, options.tls_key)
        self._socket.listen(config.backlog)
        # a collection holds up all requests, the longer the more it looks through
        gc.freeze()
        gc.set_threshold(10_000, 50, 1_000)
        file = options.api_key_file
        _on_signals(partial(_read_again, self._keys, file) if file else None)
        click.echo(f"textgen: {said}", err=True)
        uvicorn.Server(config).run(sockets=[self._socket])


@contextlib.contextmanager
def listening(options: ServerOptions) -> Iterator[Listener]:
    """A listener on the address of the options. Raises UsageError where it cannot be taken, or the
    keys cannot be read.
    """
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    host, uds = options.host, options.uds
    keys, made_key = _keys(options.api_key_file), ""
    with _unix_socket(uds) if uds else _tcp_socket(host, options.port) as bound:
        is_local = bool(uds) or _is_loopback(bound)
        if not keys and not is_local:
            made_key = secrets.token_urlsafe(24)
            keys = [made_key]
        scheme = "https" if options.tls_cert else "http"
        yield Listener(
            address=str(uds or f"{scheme}://{_shown(host)}:{bound.getsockname()[1]}"),
            is_local=is_local,
            access=Access(
                keys=keys,
                hosts=[host.lower(), socket.gethostname().lower(), *options.allow_host],
                origins=options.allow_origin,
            ),
            made_key=made_key,
            socket=bound,
            keys=keys,
            options=options,
        )


def _on_signals(reload: Callable[[], None] | None) -> None:
    """Set what signals do: SIGHUP is as SIGTERM if there is nothing to read again."""
    logger.setLevel(logging.INFO)
    logger.propagate = False
    (handler := logging.StreamHandler()).setFormatter(logging.Formatter("textgen: %(message)s"))
    logger.addHandler(handler)
    # uvicorn raises the signal again once it has stopped: the socket's file has to go before the
    # process does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if hasattr(signal, "SIGHUP"):
        again = reload or partial(signal.raise_signal, signal.SIGTERM)
        signal.signal(signal.SIGHUP, lambda *_: again())


def _read_again(keys: list[str], file: Path) -> None:
    """Replace the keys by those that the file has now."""
    try:
        keys[:] = _keys(file)
        logger.info("%s is read: %d keys", file, len(keys))
    except UsageError as error:
        logger.warning("%s; the keys stay as they are", error)


def _configured(
    app: ASGIApp, grace: int, certificate: Path | None, key: Path | None
) -> uvicorn.Config:
    """The configuration of uvicorn. Raises UsageError for a certificate that cannot be used."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except OSError as error:
        cause = f"--tls-cert {certificate} with --tls-key {key} cannot be used: {error}"
        raise UsageError(cause) from error
    return config


def _keys(file: Path | None) -> list[str]:
    """The API keys: the lines of a file, and the environment's. Raises UsageError."""
    keys = [os.environ.get(KEY_VARIABLE, "")]
    if file is not None:
        try:
            keys += file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(f"--api-key-file: {file} cannot be read: {error}") from error
        if not any(map(str.strip, keys)):
            raise UsageError(f"--api-key-file: {file} has no key")
    return [key.strip() for key in keys if key.strip()]


def _tcp_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address. Raises UsageError."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # with the protocol, or asyncio does not switch off its delay of small packets
        listener = socket.socket(family, kind, protocol)
        if os.name != "nt":  # where it would let two servers listen on one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}") from error
    return listener


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    """A Unix socket that only this user can open; the file of a server that has gone is replaced.

    Raises UsageError.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("--uds: this system has no Unix sockets")
    if path.exists() and not path.is_socket():
        raise UsageError(f"cannot listen on {path}: it is a file, and no socket")
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        if path.exists() and not _answers(path):
            path.unlink()
        listener.bind(str(path))
    except OSError as error:
        raise UsageError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    try:
        with listener:
            yield listener
    finally:
        path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    """Whether a server listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _shown(host: str) -> str:
    """The host of an address that a browser can open."""
    every = ("0.0.0.0", "::")  # noqa: S104  # which is compared, and not bound
    host = socket.gethostname() if host in every else host
    return f"[{host}]" if ":" in host else host
