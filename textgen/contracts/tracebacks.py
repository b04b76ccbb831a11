"""Where in a plugin's own code an error came from."""

from __future__ import annotations

import traceback
from collections.abc import Collection

from textgen.plugin.component import Component
from textgen.plugin.places import shown_path


def packages_of(component: Component, module: str | None = None) -> set[str]:
    """The top-level modules of a component's own code. `module` is the one that its entry point names, if known."""
    parts = (component.build, component.config)
    names = {module, *(getattr(part, "__module__", None) for part in parts)}
    return {name.partition(".")[0] for name in names if isinstance(name, str)} - {"textgen", "functools"}


def last_line(error: BaseException | None, packages: Collection[str]) -> str:
    """The last line of these packages in a traceback, as file:line; "" if there is none."""
    places = [
        f"{shown_path(frame.f_code.co_filename)}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__ if error else None)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in packages
    ]
    return places[-1] if places else ""
