"""Writes new plugin packages that install, pass their tests and run."""

from __future__ import annotations

import datetime
import json
import keyword
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata, resources, util
from pathlib import Path
from string import Template
from typing import Final

from textgen.errors import UsageError
from textgen.plugin.component import COMMANDS, HOOKS, OWN_DISTRIBUTION, normalized
from textgen.plugin.discovery import requirements
from textgen.plugin.registry import PluginSet

_DISTRIBUTION: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX: Final = ".template"
# Where the files of textgen/tools/scaffolds go; those named after what is in them go into the package, and tests/.
_PLACES: Final[Mapping[str, str]] = {
    "LICENSE": "LICENSE",
    "README.md": "README.md",
    "__init__.py": "{module}/__init__.py",
    "gitignore": ".gitignore",
    "pipeline.toml": "pipeline.toml",
    "pyproject.toml": "pyproject.toml",
    "test.py": "tests/test_{component_}.py",
    "test.yml": ".github/workflows/test.yml",
}
# What each kind of example imports beside attrs and textgen, at the versions that textgen itself asks for.
_IMPORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "sampler": ("array-api-compat",),
    "tokenizer": ("numpy",),
    "model": ("torch",),
    "trainer": ("torch",),
    "command": ("click",),
}


def write_package(name: str, kind: str, parent: Path, plugins: PluginSet) -> Path:
    """Write the package `name`, with one component of a kind, to a folder of that name in `parent`; return the folder.

    `plugins` holds the names that are taken. Raises UsageError, and then leaves no files behind.
    """
    # `textgen-top-a` has the module `textgen_top_a` and the component `top-a`
    module, component = name.replace("-", "_"), name.removeprefix("textgen-")
    _check(name, module, component, kind, plugins)
    folder = parent / name
    try:
        if os.path.lexists(folder) and (
            folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())
        ):
            raise UsageError(
                f"{folder} exists and is not an empty folder; choose another name, or move it away"
            )
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}-") as temporary:
            made = Path(temporary) / name
            for path, text in _files(name, module, component, kind):
                file = made / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")
            if folder.exists():
                folder.rmdir()  # it is empty, and only POSIX lets a folder be renamed to one
            os.rename(made, folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _check(name: str, module: str, component: str, kind: str, plugins: PluginSet) -> None:
    """Raise UsageError if a package or component of these names could not be published, installed or found."""
    if not _DISTRIBUTION.fullmatch(name) or not _DISTRIBUTION.fullmatch(component):
        proposal = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = (
            f"; write {proposal!r}"
            if proposal != name and _DISTRIBUTION.fullmatch(proposal)
            else ""
        )
        raise UsageError(
            f"{name!r} is not a name for a package: use lower-case words of letters and digits, joined by "
            f"hyphens, that begin with a letter, also after textgen-{hint}"
        )
    if keyword.iskeyword(module):
        raise UsageError(
            f"{name!r} is a keyword of Python and cannot be imported; write 'textgen-{name}'"
        )
    if name in {normalized(found.name) for found in metadata.distributions() if found.name}:
        raise UsageError(f"a distribution called {name!r} is installed; choose another name")
    if util.find_spec(module) is not None:
        raise UsageError(f"a module called {module!r} can be imported already; choose another name")
    taken = [offer.distribution for offer in plugins.offers(kind) if offer.name == component]
    if kind == "command" and component in COMMANDS:
        taken.append(OWN_DISTRIBUTION)
    if taken:
        raise UsageError(f"a {kind} called {component!r} is in {taken[0]}; choose another name")


def _files(name: str, module: str, component: str, kind: str) -> Iterator[tuple[str, str]]:
    """Path and text of each file of a package."""
    folder = resources.files("textgen.tools") / "scaffolds"
    templates = {
        file.name.removesuffix(_SUFFIX): file.read_text(encoding="utf-8")
        for part in ("common", kind)  # what a kind has of its own counts
        for file in (folder / part).iterdir()
        if file.name.endswith(_SUFFIX)
    }
    templates["__init__.py"] += templates["hook.py"]
    # Tables of its own, the component's first, take the place of those in the pipeline that all kinds have.
    own = _tables(templates.get("tables.toml", ""))
    templates["pipeline.toml"] = (
        "\n\n".join({**_tables(templates["pipeline.toml"]), **own}.values()) + "\n"
    )
    values = {
        "Class": component.title().replace("-", ""),
        "article": "An" if kind[0] in "aeiou" else "A",
        "component": component,
        "dependencies": ", ".join(map(json.dumps, _dependencies(kind))),
        "distribution": name,
        "hook": next(hook for hook, of in HOOKS.items() if of == kind),
        "kind": kind,
        "module": module,
        "year": str(datetime.date.today().year),
    }
    # The first line of the config class's docstring, which `textgen plugins` shows too.
    documented = templates["__init__.py"].partition("\n@attrs.frozen")[2].partition('"""')[2]
    values["summary"] = Template(documented.partition('"""')[0].partition("\n")[0]).substitute(
        values
    )
    values["table"] = Template(next(iter(own.values()), "")).substitute(values)
    values["usage"] = Template(templates["usage.md"]).substitute(values)
    for template, path in {**_PLACES, f"{kind}.py": f"{module}/{kind}.py"}.items():
        if template in templates:
            file = path.format(module=module, component_=component.replace("-", "_"))
            yield file, Template(templates[template]).substitute(values)
    yield f"{module}/py.typed", ""


def _tables(text: str) -> dict[str, str]:
    """The tables of a TOML text as they are written, by name; those of a list together."""
    tables: dict[str, str] = {}
    for table in filter(None, text.strip().split("\n\n")):
        name = table.partition("]")[0].strip("[")
        tables[name] = f"{tables[name]}\n\n{table}" if name in tables else table
    return tables


def _dependencies(kind: str) -> list[str]:
    """Requirements: textgen from this minor version on, and others as textgen itself has them."""
    own = requirements(OWN_DISTRIBUTION)
    major, minor = metadata.version(OWN_DISTRIBUTION).split(".")[:2]
    return sorted(
        [
            *(own[name] for name in ("attrs", *_IMPORTS.get(kind, ()))),
            f"{OWN_DISTRIBUTION}>={major}.{minor}",
        ]
    )
