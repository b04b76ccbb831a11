"""Where in files an error came from."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Final

_LIBRARIES: Final = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_OWN: Final = str(Path(__file__).parents[1])


def shown_path(path: str) -> str:
    """The path, relative to the current folder if it is inside."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path


def raised_at(error: BaseException, module: str) -> str:
    """The last line of a plugin's code in a traceback, as " (file:line)"; "" if there is none.

    That is the code of the module's top-level package, and what is neither Python's nor textgen's nor installed, such
    as a module beside a plugin file.
    """
    if isinstance(error, SyntaxError):  # whose text says where
        return ""
    top = module.partition(".")[0]
    places = [
        f"{shown_path(frame.f_code.co_filename)}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _name(frame.f_globals) == top or _is_loose(frame.f_code.co_filename)
    ]
    return f" ({places[-1]})" if places else ""


def _name(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]


def _is_loose(path: str) -> bool:
    if path.startswith("<"):  # <frozen importlib._bootstrap>
        return False
    return not any(Path(path).is_relative_to(folder) for folder in (*_LIBRARIES, _OWN))
