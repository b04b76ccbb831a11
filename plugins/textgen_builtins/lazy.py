"""Components whose modules are imported only when they are built."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from textgen import BuildContext


def lazily(module: str, name: str = "build") -> Callable[[Any, BuildContext], Any]:
    """A `build` of a component: the function of a name in a module of the built-in set."""

    def build(config: Any, context: BuildContext) -> Any:
        return getattr(import_module(f"textgen_builtins.{module}"), name)(config, context)

    return build
