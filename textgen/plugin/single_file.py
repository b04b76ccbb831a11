"""Imports a plugin that is a single Python file."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType, ModuleType
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
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", argument="path") from error
    plugin = Plugin(path.stem, UNPACKAGED, f"sha256:{hashlib.sha256(data).hexdigest()}", str(path))
    # A name of its own: two files of one name may be plugins, and an edited one is another module.
    key = hashlib.sha256(str(path).encode("utf-8", "surrogateescape") + data).hexdigest()[:12]
    name = f"textgen_plugin_{re.sub(r'[^a-zA-Z0-9_]', '_', path.stem)}_{key}"
    if name not in sys.modules:
        _import(name, data, plugin)
    return plugin, sys.modules[name]


class _Loader(SourceFileLoader):
    """Runs the very bytes that the checksum is of: compiled code of an older file never takes their place."""

    def __init__(self, name: str, path: str, data: bytes) -> None:
        super().__init__(name, path)
        self._data = data

    def get_code(self, fullname: str) -> CodeType | None:
        code: Any = self.source_to_code(self._data, self.path)
        return code if isinstance(code, CodeType) else None


def _import(name: str, data: bytes, plugin: Plugin) -> None:
    loader = _Loader(name, plugin.path, data)
    spec = ModuleSpec(name, loader, origin=plugin.path)
    spec.has_location = True
    module = sys.modules[name] = module_from_spec(spec)  # config classes look up their types there
    try:
        # What a module prints is not part of this process's output.
        with contextlib.redirect_stdout(sys.stderr), reported_if_slow(plugin):
            loader.exec_module(module)
        module.__spec__ = None  # like a script's: no other process can import it by its name
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise PluginError(f"importing it failed: {cause_of(error, plugin)}", **plugin.facts()) from error
