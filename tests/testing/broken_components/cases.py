"""A component that breaks one statement of its contract, and what must be said of it."""

from __future__ import annotations

from typing import Any

import attrs

from textgen import Component, NoOptions


@attrs.frozen
class Case:
    """A component that breaks the statement of this anchor, and what must be said to have been seen."""

    kind: str
    statement: str
    seen: str
    component: Component
    arguments: dict[str, Any] = attrs.field(factory=dict)

    @property
    def id(self) -> str:
        return f"{self.statement}-{self.component.name}"


def offered(made: Any, name: str = "good") -> Component:
    """A component without options; a class is called with the context, anything else is what is built."""
    return Component(
        name, NoOptions, lambda config, context: made(context) if isinstance(made, type) else made
    )
