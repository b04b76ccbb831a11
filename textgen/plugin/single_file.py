"""Imports a plugin that is a single Python file."""

from __future__ import annotations

import hashlib
import re
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from textgen.errors import PluginError, UsageError
from textgen.plugin.component import UNPACKAGED, Plugin
from textgen.plugin.discovery import reported_if_slow
from textgen.plugin.validation import cause_of


def import_file(path: str | Path) -> tuple[Plugin, ModuleType]:
    """The plugin and the module that a file is. The same file is imported once, until it is edited.

    Raises UsageError if it cannot be read, PluginError if it cannot be imported.
    """
    path = Path(path).expanduser().absolute()
    if path.suffix != ".py":
        raise UsageError("expected a Python file, NAME.py", argument="path", value=str(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        cause = f"{path} cannot be read: {error.strerror or error}"
        raise UsageError(cause, argument="path") from error
    plugin = Plugin(path.stem, UNPACKAGED, f"sha256:{hashlib.sha256(data).hexdigest()}", str(path))
    # A name of its own: two files of one name may be plugins, and an edited one is another module.
    key = hashlib.sha256(str(path).encode("utf-8", "surrogateescape") + data).hexdigest()[:12]
    name = f"textgen_plugin_{re.sub(r'[^a-zA-Z0-9_]', '_', path.stem)}_{key}"
    if name not in sys.modules:
        try:
            with reported_if_slow(plugin):
                _execute(name, plugin.path, data)
        except (Exception, SystemExit) as error:
            cause = cause_of(error, plugin, name, placed=True)
            raise PluginError(f"importing it failed: {cause}", **plugin.facts()) from error
    return plugin, sys.modules[name]


def _execute(name: str, path: str, data: bytes) -> None:
    """Import a file, whatever that raises."""
    loader = _Loader(name, path, data)
    spec = ModuleSpec(name, loader, origin=path)
    spec.has_location = True
    # Config classes look up their types in sys.modules.
    module = sys.modules[name] = module_from_spec(spec)
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    module.__spec__ = None  # like a script's: no other process can import it by its name


def is_file(module: str) -> bool:
    """Whether what is to be imported is a plugin file, and no module's name: `py` is none that is in a package."""
    return module.endswith(".py")


class _Loader(SourceFileLoader):
    """Runs the very bytes that the checksum is of: compiled code of an older file never takes their place."""

    def __init__(self, name: str, path: str, data: bytes) -> None:
        super().__init__(name, path)
        self._data = data

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self._data, self.path)
