"""Finds installed plugins from their metadata alone, and imports them."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final

from textgen.plugin.component import OWN_DISTRIBUTION, Plugin, normalized

ENTRY_POINT_GROUP: Final = "textgen"
SLOW_SECONDS: Final = 3.0  # an import that takes longer is reported while it lasts

logger = logging.getLogger("textgen")


def installed() -> dict[Plugin, metadata.EntryPoint]:
    """Each entry point once, in a stable order; if a distribution is on the path twice, the first
    is used.
    """
    found: dict[tuple[str, str], tuple[Plugin, metadata.EntryPoint]] = {}
    facts: dict[metadata.Distribution, tuple[str, str]] = {}  # which are parsed each time
    for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        dist = entry_point.dist
        assert dist is not None
        if dist not in facts:
            facts[dist] = normalized(dist.name), dist.version
        plugin = Plugin(entry_point.name, *facts[dist])
        found.setdefault((plugin.distribution, plugin.name), (plugin, entry_point))
    return dict(found[key] for key in sorted(found))


def imported(plugin: Plugin, entry_point: metadata.EntryPoint) -> Any:
    """The module that an entry point names, or what that names in it.

    Raises what the import raises.
    """
    if entry_point.module in sys.modules:
        return entry_point.load()
    with reported_if_slow(plugin):
        return entry_point.load()


@contextlib.contextmanager
def reported_if_slow(plugin: Plugin) -> Iterator[None]:
    """Log which plugin is being imported if the block takes more than a few seconds: it may never
    end.
    """
    timer = threading.Timer(SLOW_SECONDS, logger.warning, ("still importing %s", plugin))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def version(distribution: str) -> str | None:
    """The version of an installed distribution; None for one that is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def unmet(distribution: str) -> str:
    """The version of textgen that an installed distribution requires, if that is not this one."""
    from packaging.requirements import Requirement

    needed, own = requirements(distribution).get(OWN_DISTRIBUTION), version(OWN_DISTRIBUTION)
    if needed is None or own is None:
        return ""
    return "" if Requirement(needed).specifier.contains(own, prereleases=True) else needed


def requirements(distribution: str, extra: str = "") -> dict[str, str]:
    """The requirements of an installed distribution for this Python, by package; with an extra,
    what that adds.
    """
    from packaging.requirements import Requirement  # slow to import

    if version(distribution) is None:
        return {}
    declared = [Requirement(each) for each in metadata.requires(distribution) or []]

    def holding(extra: str) -> dict[str, str]:
        return {
            normalized(each.name): str(each)
            for each in declared
            if not each.marker or each.marker.evaluate({"extra": extra})
        }

    own = holding("")
    return (
        {name: text for name, text in holding(extra).items() if name not in own} if extra else own
    )
