"""Finds installed plugins from their metadata alone, and imports them."""

from __future__ import annotations

from importlib import metadata
from typing import Final

from textgen.plugin.component import OWN_DISTRIBUTION, Plugin, normalized

ENTRY_POINT_GROUP: Final = "textgen"


def installed() -> dict[Plugin, metadata.EntryPoint]:
    """Each entry point, in a stable order."""
    found = {}
    for each in metadata.entry_points(group=ENTRY_POINT_GROUP):
        assert each.dist is not None
        found[Plugin(each.name, normalized(each.dist.name), each.dist.version)] = each
    return dict(sorted(found.items(), key=lambda item: (item[0].distribution, item[0].name)))


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
    return {
        normalized(each.name): str(each)
        for each in declared
        if (f'extra == "{extra}"' in str(each.marker)) == bool(extra)
        and (each.marker is None or each.marker.evaluate({"extra": extra}))
    }
