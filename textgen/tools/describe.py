"""The contents of a PluginSet as JSON values, for `textgen plugins` and the reference pages."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from textgen.plugin.registry import PluginSet
from textgen.plugin.structure import phrase, plain


def describe(plugins: PluginSet, kind: str | None = None) -> dict[str, Any]:
    """Components with their options, the names that several components of a kind share, and
    quarantined plugins.
    """
    offers = plugins.offers(kind)
    counts = Counter((offer.kind, offer.name) for offer in offers)
    shared = {pair: list[str]() for pair, count in counts.items() if count > 1}
    for offer in offers:
        if (offer.kind, offer.name) in shared:
            shared[offer.kind, offer.name].append(offer.written_name)
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
            for offer in offers
        ],
        "clashes": [
            {"kind": of, "name": name, "qualified_names": names}
            for (of, name), names in shared.items()
        ],
        "quarantined": [
            {**each.plugin.facts(), "cause": each.cause} for each in plugins.quarantined
        ],
    }


def describe_option(field: attrs.Attribute[Any]) -> dict[str, Any]:
    """One key of a component's table. `default` is null where there is none or no value,
    `argument` where no option of requests sets it.
    """
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
        "argument": field.metadata.get("argument"),
    }
