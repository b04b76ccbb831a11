"""Imports a plugin that is a single Python file."""

from __future__ import annotations

import hashlib
import sys
import threading
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn

from textgen.errors import UsageError
from textgen.plugin.component import UNPACKAGED, Plugin

_LOCK: Final = threading.RLock()


def file_plugin(path: str | Path) -> Plugin:
    """The plugin that a file is, not imported yet. Raises UsageError if it cannot be read."""
    path = Path(path).expanduser().absolute()
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        cause = f"{path} cannot be read: {error.strerror or error}"
        raise UsageError(cause, argument="path") from error
    return Plugin(path.stem, UNPACKAGED, f"sha256:{sha256}", str(path))


def module_name(plugin: Plugin) -> str:
    """The name of a file's module, by its content: two files of one name may be plugins, and an
    edited one is another module.
    """
    return f"textgen_plugin_{plugin.name.replace('.', '_')}_{plugin.version[-12:]}"


def import_file(plugin: Plugin) -> ModuleType:
    """The module that a file is, whatever that raises. It is imported once, until it is edited."""
    name = module_name(plugin)
    with _LOCK:  # another thread may be importing it
        if name not in sys.modules:
            loader = _Loader(name, plugin.path)
            spec = spec_from_file_location(name, plugin.path, loader=loader)
            assert spec is not None
            # Config classes look up their types in sys.modules.
            module = sys.modules[name] = module_from_spec(spec)
            try:
                loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]


def is_file(module: str) -> bool:
    """Whether the string ends in .py: a file, not a module."""
    return module.endswith(".py")


class _Loader(SourceFileLoader):
    """Compiles the file anew: compiled code of an older file never takes its place, and none is
    written.
    """

    def path_stats(self, path: object) -> NoReturn:
        raise OSError
