"""Finds installed plugins from their metadata alone, and imports them, optionally with a time limit."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from importlib import metadata
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from textgen.plugin.component import Plugin

ENTRY_POINT_GROUP: Final = "textgen"
SLOW_SECONDS: Final = 3.0  # an import that takes longer is reported while it lasts

logger = logging.getLogger("textgen")


@attrs.frozen
class InstalledPlugin:
    """An installed plugin, which need not be imported yet."""

    plugin: Plugin
    entry_point: metadata.EntryPoint


def installed() -> list[InstalledPlugin]:
    """Each entry point once, in a stable order; if a distribution is on the path twice, the first is used."""
    found: dict[tuple[str, str], InstalledPlugin] = {}
    for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        assert entry_point.dist is not None
        name = normalized(entry_point.dist.name)
        plugin = Plugin(entry_point.name, name, entry_point.dist.version)
        found.setdefault((name, entry_point.name), InstalledPlugin(plugin, entry_point))
    return [found[key] for key in sorted(found)]


def imported(found: Collection[InstalledPlugin], patience: float | None) -> list[Future[Any]]:
    """Import plugins in order; with `patience`, side by side, and for so many seconds in all.

    Gives the module or the error of each; neither where an import is still running.
    """
    imports: list[Future[Any]] = [Future() for _ in found]
    if patience is None:
        for made, item in zip(imports, found, strict=True):
            with reported_if_slow(item.plugin):
                _import(item.entry_point, made)
    else:
        _import_in_threads(imports, found, patience)
    return imports


@contextlib.contextmanager
def reported_if_slow(plugin: Plugin) -> Iterator[None]:
    """Log which plugin is being imported if the block takes more than a few seconds: it may never end."""
    advice = (
        ""
        if plugin.path
        else f"; --no-plugin {plugin.name} (disable, in a program) does without it"
    )
    timer = threading.Timer(SLOW_SECONDS, logger.warning, ("still importing %s%s", plugin, advice))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _import(entry_point: metadata.EntryPoint, made: Future[Any]) -> None:
    try:
        made.set_result(entry_point.load())
    except (Exception, SystemExit) as error:
        made.set_exception(error)


def _import_in_threads(
    imports: list[Future[Any]], found: Collection[InstalledPlugin], patience: float
) -> None:
    threads = [
        # Daemons: an import that never ends must not keep the process alive.
        threading.Thread(target=_import, args=(item.entry_point, made), daemon=True)
        for made, item in zip(imports, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + patience
    for thread, item in zip(threads, found, strict=True):
        with reported_if_slow(item.plugin):
            thread.join(max(0.0, deadline - time.monotonic()))


def requirements(distribution: str, *, extras: bool = False) -> dict[str, str]:
    """The requirements that an installed distribution declares, by the names of the packages."""
    needed = (each for each in _declared(distribution) if extras or "extra ==" not in each)
    return {_name(requirement): requirement for requirement in needed}


def version(distribution: str) -> str | None:
    """The version of an installed distribution; None for one that is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def extras(distribution: str) -> dict[str, list[str]]:
    """The packages that each extra of an installed distribution adds in this version of Python."""
    found: dict[str, list[str]] = {}
    for requirement in _declared(distribution):
        extra = re.search(r"""extra == ["']([^"']+)""", requirement)
        older = re.search(r"""python_version < ["'](\d+)\.(\d+)""", requirement)
        if extra and not (older and sys.version_info >= (int(older[1]), int(older[2]))):
            found.setdefault(extra[1], []).append(_name(requirement))
    return found


def _declared(distribution: str) -> list[str]:
    try:
        return metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []


def _name(requirement: str) -> str:
    return normalized(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])


def unmarked(distribution: str) -> str:
    """What an installed distribution without a plugin lacks; "" for any other."""
    try:
        installed = metadata.distribution(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        return ""
    if any(entry_point.group == ENTRY_POINT_GROUP for entry_point in installed.entry_points):
        return ""
    return (
        f"{distribution} is installed and is no plugin: it has no entry point in the group {ENTRY_POINT_GROUP!r}; add "
        f"one under [project.entry-points.{ENTRY_POINT_GROUP}] in its pyproject.toml, and install it again"
    )


def is_among(plugin: Plugin, names: Collection[str]) -> bool:
    """Whether one of the names is that of its entry point, its distribution, or both as `distribution:entry-point`.

    Two packages may have an entry point of the same name.
    """
    for name in names:
        package, _, entry_point = name.rpartition(":")
        if package:
            if (normalized(package), entry_point) == (plugin.distribution, plugin.name):
                return True
        elif name == plugin.name or normalized(name) == plugin.distribution:
            return True
    return False


def editable(distribution: str) -> str:
    """The source folder of an editable installation; "" for any other."""
    try:
        text = metadata.distribution(distribution).read_text("direct_url.json") or "{}"
        source = json.loads(text)
    except (metadata.PackageNotFoundError, ValueError):
        return ""
    if not source.get("dir_info", {}).get("editable"):
        return ""
    from urllib.request import url2pathname  # which loads ssl

    return url2pathname(urlsplit(source["url"]).path)


def normalized(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
