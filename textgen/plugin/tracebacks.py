"""Where in a plugin's own code an error came from."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Collection
from pathlib import Path
from types import FrameType
from typing import Final

from textgen.plugin.component import Component

_LIBRARIES: Final = {
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
}
_OWN: Final = str(Path(__file__).parents[1])


def shown_path(path: str) -> str:
    """The path, relative to the current folder if it is inside."""
    return (
        str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
    )


def package_of(frame: FrameType) -> str:
    """The top-level module that a frame's code is in."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def packages_of(component: Component, module: str | None = None) -> set[str]:
    """The top-level modules of a component's own code. `module` is the one that its entry point names, if known."""
    parts = (component.build, component.config)
    names = {module, *(getattr(part, "__module__", None) for part in parts)}
    packages = {name.partition(".")[0] for name in names if isinstance(name, str)}
    return packages - {"textgen", "functools"}


def shown_line(error: BaseException, packages: Collection[str], *, loose: bool = False) -> str:
    """The last line of these packages in a traceback, as " (FILE:LINE, in FUNCTION)"; "" if there is none.

    loose  count what is neither Python's nor textgen's nor installed, such as a module beside a plugin file
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = frame.f_code.co_filename
        if package_of(frame) in packages or (loose and _is_loose(path)):
            name = frame.f_code.co_name
            return f" ({shown_path(path)}:{line}{'' if name == '<module>' else f', in {name}'})"
    return ""


def raised_at(error: BaseException, module: str) -> str:
    """The last line of a plugin's code in a traceback; "" for a SyntaxError, whose text says where."""
    packages = {module.partition(".")[0]}
    return "" if isinstance(error, SyntaxError) else shown_line(error, packages, loose=True)


def _is_loose(path: str) -> bool:
    if path.startswith("<"):  # <frozen importlib._bootstrap>
        return False
    return not any(Path(path).is_relative_to(folder) for folder in (*_LIBRARIES, _OWN))
