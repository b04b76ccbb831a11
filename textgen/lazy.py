"""Public names of a package that are imported when they are first asked for, from where its stub
says.
"""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def names_of(package: str) -> tuple[list[str], Callable[[str], Any]]:
    """`__all__` and `__getattr__` of a package, by the imports in its `__init__.pyi`.

    A plugin's import and `textgen --help` wait for no NumPy, and a Ctrl-C in the first moments of
    the command finds something there to answer it.
    """
    module = sys.modules[package]
    stub = Path(str(module.__file__)).with_suffix(".pyi").read_text(encoding="utf-8")
    where = {name: home for home, name in re.findall(r"^from (\S+) import (\w+)", stub, re.M)}

    def find(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(where[name]), name)
        setattr(module, name, value)
        return value

    return sorted(where), find
