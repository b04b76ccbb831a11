"""Serves the page, and the desk of a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from textgen import PluginSet, UsageError
from textgen.files import inside, read_bytes, write_atomic
from textgen_desk.app import create_app
from textgen_desk.desk import Desk
from textgen_serve.models import named_runs
from textgen_serve.options import ServerOptions
from textgen_serve.server import listening


def serve(
    runs: Sequence[str],
    folder: Path | None,
    train: bool | None,
    plugins: PluginSet,
    options: ServerOptions,
) -> None:
    """Serve until a signal: the runs or, without any, the desk of a folder.

    train   whether the desk takes texts; None lets it where this machine alone can reach it

    Raises UsageError where the address or the folder cannot be taken, and what loading a run
    raises.
    """
    if runs and (folder is not None or train is not None):
        raise UsageError("--folder and --train are of the desk, which is there without RUN")
    folder, named = folder or Path("runs"), named_runs(runs)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(options))
        desk = None
        if not named:
            trains = listener.is_local if train is None else train
            desk = stack.enter_context(_desk(folder, trains, listener.address, plugins))
        app = create_app(
            named, desk=desk, plugins=plugins, access=listener.access, **options.app_arguments()
        )
        what = ", ".join(named) or f"a desk with {folder}"
        key = f"/#key={listener.made_key}" if listener.made_key else ""
        listener.serve(app, f"serving {what} at {listener.address}{key}")


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
        other = read_bytes(owner, max_bytes=1000).decode() if is_known else "another address"
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
