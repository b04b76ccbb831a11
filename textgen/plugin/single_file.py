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

from textgen.errors import PluginError, UsageError
from textgen.plugin.component import UNPACKAGED, Plugin
from textgen.plugin.validation import cause_of

_LOCK: Final = threading.RLock()


def import_file(path: str | Path) -> tuple[Plugin, ModuleType]:
    """The plugin and the module that a file is. The same file is imported once, until it is edited.

    Raises UsageError if it cannot be read, PluginError if it cannot be imported.
    """
    path = Path(path).expanduser().absolute()
    try:
        data = path.read_bytes()
    except OSError as error:
        cause = f"{path} cannot be read: {error.strerror or error}"
        raise UsageError(cause, argument="path") from error
    plugin = Plugin(path.stem, UNPACKAGED, f"sha256:{hashlib.sha256(data).hexdigest()}", str(path))
    # A name of its own: two files of one name may be plugins, and an edited one is another module.
    key = hashlib.sha256(f"{path}\0{plugin.version}".encode("utf-8", "surrogateescape"))
    name = f"textgen_plugin_{path.stem.replace('.', '_')}_{key.hexdigest()[:12]}"
    with _LOCK:  # another thread may be importing it
        if name not in sys.modules:
            try:
                _execute(name, str(path))
            except (Exception, SystemExit) as error:
                sys.modules.pop(name, None)
                raise PluginError(plugin, cause_of(error, plugin, {name})) from error
        return plugin, sys.modules[name]


def _execute(name: str, path: str) -> None:
    """Import a file, whatever that raises."""
    loader = _Loader(name, path)
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    # Config classes look up their types in sys.modules.
    module = sys.modules[name] = module_from_spec(spec)
    loader.exec_module(module)


def is_file(module: str) -> bool:
    """Whether the string ends in .py: a file, not a module."""
    return module.endswith(".py")


class _Loader(SourceFileLoader):
    """Compiles the file anew: compiled code of an older file never takes its place, and none is
    written.
    """

    def path_stats(self, path: object) -> NoReturn:
        raise OSError
