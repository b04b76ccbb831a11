"""Finds installed plugins from their metadata alone, and imports them."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Collection, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import attrs

from textgen.plugin.component import Plugin

if TYPE_CHECKING:
    from packaging.requirements import Requirement

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


def imported(found: InstalledPlugin) -> Any:
    """The module that its entry point names, or what that names in it. Raises what the import raises."""
    with reported_if_slow(found.plugin):
        return found.entry_point.load()


@contextlib.contextmanager
def reported_if_slow(plugin: Plugin) -> Iterator[None]:
    """Log which plugin is being imported if the block takes more than a few seconds: it may never end."""
    advice = "" if plugin.path else "; it can be disabled"
    timer = threading.Timer(SLOW_SECONDS, logger.warning, ("still importing %s%s", plugin, advice))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def requirements(distribution: str, *, extras: bool = False) -> dict[str, str]:
    """The requirements that an installed distribution declares for this Python, by package; those of extras too."""
    names = ["", *_extras(distribution)] if extras else [""]
    return {
        normalized(each.name): str(each) for name in names for each in _declared(distribution, name)
    }


def version(distribution: str) -> str | None:
    """The version of an installed distribution; None for one that is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def extras(distribution: str) -> dict[str, list[str]]:
    """The packages that each extra of an installed distribution adds in this version of Python."""
    own = requirements(distribution)
    added = {name: _declared(distribution, name) for name in _extras(distribution)}
    return {
        extra: [name for each in found if (name := normalized(each.name)) not in own]
        for extra, found in added.items()
    }


def _extras(distribution: str) -> list[str]:
    try:
        return metadata.metadata(distribution).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []


def _declared(distribution: str, extra: str) -> list[Requirement]:
    """The requirements that hold here, with one extra or without."""
    from packaging.requirements import Requirement  # slow to import

    try:
        found = map(Requirement, metadata.requires(distribution) or [])
    except metadata.PackageNotFoundError:
        return []
    return [each for each in found if not each.marker or each.marker.evaluate({"extra": extra})]


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


def normalized(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
