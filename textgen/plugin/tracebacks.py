"""Finds the line of a plugin's own code that an error came from."""

from __future__ import annotations

import traceback
from collections.abc import Collection
from types import FrameType

from textgen.plugin.component import Component


def package_of(frame: FrameType) -> str:
    """The top-level module that a frame's code is in."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def packages_of(component: Component, module: str | None = None) -> set[str]:
    """The top-level modules of a component's own code.

    `module` is the one that its entry point names, if known.
    """
    parts = (component.build, component.config)
    names = {module, *(getattr(part, "__module__", None) for part in parts)}
    packages = {name.partition(".")[0] for name in names if isinstance(name, str)}
    return packages - {"textgen", "functools"}


def shown_line(error: BaseException, packages: Collection[str]) -> str:
    """The last line of these packages in a traceback, as " (FILE:LINE, in FUNCTION)"; "" if there
    is none.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if package_of(frame) in packages:
            name = frame.f_code.co_name
            where = "" if name == "<module>" else f", in {name}"
            return f" ({frame.f_code.co_filename}:{line}{where})"
    return ""
