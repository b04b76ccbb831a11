"""Writes the reference parts that come from the code itself into docs/generated/, before Sphinx reads the pages.

components.md   every built-in component with its options
tables.md       the tables of a pipeline that are no components
errors.md       the tree of exceptions
plugins.md      every plugin package that is installed or in plugins/, with its components
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from textgen import errors
from textgen.pipeline.options import TABLES, GeneralOptions
from textgen.plugin.component import OWN_DISTRIBUTION
from textgen.plugin.registry import PluginSet
from textgen.tools.commented import inline_toml
from textgen.tools.describe import describe, describe_option

_PACKAGES = Path(__file__).parents[2] / "plugins"
_COLUMNS = re.compile(r"(\S+(?:, \S+)*) {2,}(\S.*)")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", _generate)
    app.connect("autodoc-process-docstring", _columns_to_definitions)
    return {"parallel_read_safe": True}


def _generate(app: Any) -> None:
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    texts = {"components": _components(), "tables": _tables(), "errors": _errors(), "plugins": _plugins()}
    for name, text in texts.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _components() -> str:
    parts = []
    kind = ""
    # Plugins that happen to be installed have documentation of their own.
    described = describe(PluginSet.discover())["components"]
    classes = {(o.kind, o.name): o.component.config for o in PluginSet.discover().offers()}
    for component in (c for c in described if c["distribution"] == OWN_DISTRIBUTION):
        if component["kind"] != kind:
            kind = component["kind"]
            parts.append(f"### {kind.capitalize()}\n")
        parts.append(f"#### {kind} `{component['name']}`\n")
        parts.append(inspect.cleandoc(classes[kind, component["name"]].__doc__) + "\n")
        parts.append(_options(component["options"]))
    return "\n".join(parts)


def _tables() -> str:
    parts = ["### Keys outside any table\n", _options(_described(GeneralOptions))]
    for name, cls in TABLES.items():
        parts.append(f"### `[{name}]`\n")
        parts.append(f"{inspect.cleandoc(cls.__doc__ or '')}\n")
        parts.append(_options(_described(cls)))
    return "\n".join(parts)


def _described(cls: type) -> list[dict[str, Any]]:
    return [describe_option(field) for field in attrs.fields(attrs.resolve_types(cls))]


def _options(options: list[dict[str, Any]]) -> str:
    if not options:
        return "It takes no options.\n"
    rows = ["| key | value | default | what it does |", "| --- | --- | --- | --- |"]
    for option in options:
        value, text = (_escape(option[key]) for key in ("type", "help"))
        rows.append(f"| `{option['name']}` | {value} | {_default(option)} | {text} |")
    return "\n".join(rows) + "\n"


def _plugins() -> str:
    """A section for each distribution: the built-in set, then the others by name."""
    plugins = PluginSet.discover()
    described = {OWN_DISTRIBUTION: metadata.metadata(OWN_DISTRIBUTION)["Summary"]}
    for component in describe(plugins)["components"]:
        name = component["distribution"]
        described.setdefault(name, metadata.metadata(name)["Summary"])
    for path in sorted(_PACKAGES.glob("textgen-*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        if project["name"] not in described:  # not installed here: its modules tell what it offers all the same
            _register(plugins, path.parent, project)
        described[project["name"]] = project["description"]
    rows: dict[str, list[dict[str, Any]]] = {}
    for component in describe(plugins)["components"]:
        rows.setdefault(component["distribution"], []).append(component)
    return "\n".join(_plugin(name, description, rows.get(name, [])) for name, description in described.items())


def _register(plugins: PluginSet, folder: Path, project: dict[str, Any]) -> None:
    sys.path.insert(0, str(folder))
    try:
        for name, module in project["entry-points"]["textgen"].items():
            loaded = importlib.import_module(module)
            plugins.register(loaded, name, distribution=project["name"], version=project["version"])
    finally:
        sys.path.remove(str(folder))


def _plugin(name: str, description: str, components: list[dict[str, Any]]) -> str:
    table = ["| kind | name | what it is |", "| --- | --- | --- |"]
    for component in components:
        table.append(f"| {component['kind']} | `{component['name']}` | {_escape(component['summary'])} |")
    version = f", version {components[0]['version']}" if components else ""
    return f"## {name}\n\n{description}\n\n`pip install {name}`{version}.\n\n" + "\n".join(table) + "\n"


def _escape(text: str) -> str:
    """Text for a cell of a Markdown table: `<unk>` is no HTML."""
    return re.sub(r"([|<\[])", r"\\\1", text)


def _default(option: dict[str, Any]) -> str:
    if option["required"]:
        return "required"
    if option["default"] is None:
        return "not set"
    return f"`{inline_toml(option['default'])}`"


def _errors() -> str:
    tree = (errors.__doc__ or "").split("\n\n")[1]
    return f"```text\n{inspect.cleandoc(tree)}\n```\n"


def _columns_to_definitions(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings list attributes in two columns, `name   what it is`; as reStructuredText that is a definition list."""
    new: list[str] = []
    in_columns = False
    for line in lines:
        match = _COLUMNS.fullmatch(line)
        if match:
            names = ", ".join(f"``{name}``" for name in match[1].split(", "))
            if new and new[-1] and not in_columns:
                new.append("")
            new += [names, f"    {match[2]}"]
            in_columns = True
        elif in_columns and line.startswith(" "):
            new.append(f"    {line.strip()}")
        else:
            if in_columns and line:
                new.append("")
            in_columns = False
            new.append(line)
    lines[:] = new
