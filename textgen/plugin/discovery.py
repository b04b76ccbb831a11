"""Finds installed plugins from their metadata alone, and imports them."""

from __future__ import annotations

from importlib import metadata

from textgen.plugin.component import OWN_DISTRIBUTION, Plugin, normalized


def installed() -> dict[Plugin, metadata.EntryPoint]:
    """Each entry point of the group `textgen`, in a stable order; of a distribution that is on the
    path twice, those of the first.
    """
    found: dict[str, metadata.Distribution] = {}
    for each in metadata.distributions():
        if "textgen" in (each.read_text("entry_points.txt") or ""):  # most have nothing for us
            found.setdefault(normalized(each.name), each)
    return {
        Plugin(each.name, name, version): each
        for name, dist in sorted(found.items())
        for version in [dist.version]
        for each in dist.entry_points.select(group="textgen")
    }


def version(distribution: str) -> str | None:
    """The version of an installed distribution; None for one that is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def unmet(distribution: str) -> str:
    """The version of textgen that an installed distribution requires, if that is not this one."""
    from packaging.requirements import Requirement

    needed, own = requirements(distribution).get(OWN_DISTRIBUTION, ""), version(OWN_DISTRIBUTION)
    if needed and own and not Requirement(needed).specifier.contains(own, prereleases=True):
        return needed
    return ""


def requirements(distribution: str, extra: str = "") -> dict[str, str]:
    """The requirements of an installed distribution for this Python, by package; with an extra,
    what that adds.
    """
    from packaging.requirements import Requirement  # slow to import

    if version(distribution) is None:
        return {}
    return {
        normalized(each.name): str(each)
        for each in map(Requirement, metadata.requires(distribution) or [])
        if (f'extra == "{extra}"' in str(each.marker)) == bool(extra)
        and (each.marker is None or each.marker.evaluate({"extra": extra}))
    }
