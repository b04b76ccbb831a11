"""What a PluginSet holds, as JSON values: for `textgen plugins`, and for the reference pages."""

from __future__ import annotations

from typing import Any

import attrs

from textgen.pipeline.structure import phrase, plain
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet


def describe(plugins: PluginSet, kind: str | None = None) -> dict[str, Any]:
    """Components with their options, clashes, and what is quarantined."""
    return {
        "components": [
            {
                "kind": offer.kind,
                "name": offer.name,
                "qualified_name": offer.qualified_name,
                "summary": offer.component.summary,
                "plugin": offer.plugin.name,
                "distribution": offer.distribution,
                "version": offer.plugin.version,
                "options": describe_options(offer.component),
            }
            for offer in plugins.offers(kind)
        ],
        "clashes": [
            {
                "kind": group[0].kind,
                "name": group[0].name,
                "qualified_names": [offer.qualified_name for offer in group],
            }
            for group in plugins.clashes()
            if kind in (None, group[0].kind)
        ],
        "quarantined": [
            {
                "plugin": quarantined.plugin.name,
                "distribution": quarantined.plugin.distribution,
                "version": quarantined.plugin.version,
                "cause": quarantined.cause,
            }
            for quarantined in plugins.quarantined
        ],
    }


def describe_options(component: Component) -> list[dict[str, Any]]:
    """The keys of a component's table, in order. `default` is null where there is none or no value."""
    return [describe_option(field) for field in component.options().values()]


def describe_option(field: attrs.Attribute[Any]) -> dict[str, Any]:
    """One key of a table."""
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
        default = default.factory()  # type: ignore[union-attr]
    required = default is attrs.NOTHING
    return {
        "name": field.name,
        "type": phrase(field.type),
        "required": required,
        "default": None if required else plain(default),
        "help": field.metadata.get("help", ""),
    }
