"""Runs the application in uvicorn, on a socket of our own."""

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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import filelock
import uvicorn
from starlette.types import ASGIApp

from textgen import PluginSet, UsageError
from textgen.files import inside, read_bytes, write_atomic
from textgen_serve.app import create_app
from textgen_serve.desk import Desk
from textgen_serve.errors import logger
from textgen_serve.guard import Access
from textgen_serve.limits import Limits
from textgen_serve.models import named_runs
from textgen_serve.protocol import BoundedProtocol

KEY_VARIABLE = "TEXTGEN_API_KEY"


def serve(
    runs: Sequence[str],
    plugins: PluginSet,
    *,
    folder: Path | None,
    train: bool | None,
    host: str,
    port: int,
    uds: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    api_key_file: Path | None,
    allow_host: Sequence[str],
    allow_origin: Sequence[str],
    texts: int,
    time_limit: float,
    grace: int,
    unknown_parameters: str,
    chat: bool,
    routes: Sequence[Any],
    device: str,
) -> None:
    """Serve until a signal. Raises UsageError where the address cannot be taken, and what loading a
    run raises.
    """
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    if runs and (folder is not None or train is not None):
        raise UsageError("--folder and --train are of the desk, which is there without RUN")
    folder, named, keys = folder or Path("runs"), named_runs(runs), _keys(api_key_file)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_unix_socket(uds) if uds else _tcp_socket(host, port))
        fragment = ""
        is_local = bool(uds) or _is_loopback(listener)
        if not keys and not is_local:
            keys = [secrets.token_urlsafe(24)]
            fragment = f"/#key={keys[0]}"
        scheme = "https" if tls_cert else "http"
        address = str(uds or f"{scheme}://{_shown(host)}:{listener.getsockname()[1]}")
        trains = is_local if train is None else train
        desk = None if runs else stack.enter_context(_desk(folder, trains, address, plugins))
        app = create_app(
            named,
            plugins=plugins,
            device=device,
            limits=Limits(texts=texts, seconds=time_limit),
            access=Access(
                keys=keys,
                hosts=[host.lower(), socket.gethostname().lower(), *allow_host],
                origins=allow_origin,
            ),
            ignore_unknown=unknown_parameters == "ignore",
            chat=chat,
            desk=desk,
            routes=routes,
        )
        config = _configured(app, grace, tls_cert, tls_key)
        listener.listen(config.backlog)
        # a collection holds up all requests, the longer the more it looks through
        gc.freeze()
        gc.set_threshold(10_000, 50, 1_000)
        _on_signals(partial(_read_again, keys, api_key_file) if api_key_file else None)
        what = ", ".join(named) or f"a desk with {folder}"
        click.echo(f"textgen: serving {what} at {address}{fragment}", err=True)
        uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _desk(folder: Path, trains: bool, address: str, plugins: PluginSet) -> Iterator[Desk]:
    """The desk of a folder, which is made for nobody else to read, and which no other server has as
    long as this process lives. Raises UsageError, RunError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock, owner = filelock.FileLock(inside(folder, ".lock")), inside(folder, ".server")
        lock.acquire(timeout=0)
        write_atomic(owner, f"{address} (process {os.getpid()})".encode())
    except filelock.Timeout:
        is_known = owner.is_file()
        other = read_bytes(owner, most=1000).decode() if is_known else "another address"
        cause = f"--folder {folder} is served already, at {other}"
        raise UsageError(f"{cause}; open that, or give another --folder") from None
    except OSError as error:
        raise UsageError(f"--folder {folder} cannot be used: {error.strerror or error}") from error
    with lock:
        desk = Desk(folder.resolve(), trains, _offered(plugins))
        desk.sweep()
        try:
            yield desk
        finally:
            desk.stop_all()


def _offered(plugins: PluginSet) -> list[str]:
    """The names of the models of plugins that a training may start from."""
    offers = [o for o in plugins.offers("run") if "path" not in o.component.options()]
    return [name for offer in offers for name in (offer.name, offer.qualified_name)]


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
