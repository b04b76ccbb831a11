"""The contents of a PluginSet as JSON values, for `textgen plugins` and the reference pages."""

from __future__ import annotations

from typing import Any

import attrs

from textgen.plugin.registry import PluginSet
from textgen.plugin.structure import phrase, plain


def describe(plugins: PluginSet, kind: str | None = None) -> dict[str, Any]:
    """Components with their options, clashes and quarantined plugins."""
    return {
        "components": [
            {
                "kind": offer.kind,
                "name": offer.name,
                "qualified_name": offer.qualified_name,
                "summary": offer.component.summary,
                **offer.plugin.facts(),
                "options": [describe_option(field) for field in offer.component.options().values()],
            }
            for offer in plugins.offers(kind)
        ],
        "clashes": [clash for clash in describe_clashes(plugins) if kind in (None, clash["kind"])],
        "quarantined": [
            {**each.plugin.facts(), "cause": each.cause} for each in plugins.quarantined
        ],
    }


def describe_clashes(plugins: PluginSet) -> list[dict[str, Any]]:
    """The names that several components of a kind share."""
    groups: dict[tuple[str, str], list[str]] = {}
    for offer in plugins.offers():
        groups.setdefault((offer.kind, offer.name), []).append(offer.qualified_name)
    return [
        {"kind": kind, "name": name, "qualified_names": names}
        for (kind, name), names in groups.items()
        if len(names) > 1
    ]


def describe_option(field: attrs.Attribute[Any]) -> dict[str, Any]:
    """One key of a component's table. `default` is null where there is none or no value."""
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
        default = default.factory()  # type: ignore[union-attr]
    required = default is attrs.NOTHING
    return {
        "name": field.name,
        "type": f"a table of a {field.metadata['kind']}"
        if field.metadata.get("kind")
        else phrase(field.type),
        "required": required,
        "default": None if required else plain(default),
        "help": field.metadata.get("help", ""),
    }
