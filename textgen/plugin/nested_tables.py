"""Tables of tables: their values by dotted keys, and one laid over another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textgen.protocols import Table


def flat(table: Table, prefix: str = "") -> dict[str, Any]:
    """The values of nested tables by their dotted keys."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            values |= flat(value, f"{dotted}.")
        else:
            values[dotted] = value
    return values


def merged(own: Table, given: Table) -> dict[str, Any]:
    """Options of a component, and of those that it is made of, with those that are given in their
    place.
    """
    if given.get("type", own.get("type")) != own.get("type"):
        return dict(given)
    made = dict(own)
    for key, value in given.items():
        both = isinstance(value, Mapping) and isinstance(own.get(key), Mapping)
        made[key] = merged(own[key], value) if both else value
    return made
