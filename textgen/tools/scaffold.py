"""Writes new plugin packages that install, pass their tests and run."""

from __future__ import annotations

import datetime
import json
import keyword
import os
import re
import tempfile
from collections.abc import Iterator
from importlib import metadata, resources, util
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Final

import attrs

from textgen.errors import UsageError
from textgen.plugin.component import COMMANDS, HOOKS, KINDS, OWN_DISTRIBUTION
from textgen.plugin.discovery import normalized, requirements
from textgen.plugin.registry import PluginSet
from textgen.suggest import nearest

_DISTRIBUTION: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX: Final = ".template"
# Where the files of textgen/tools/scaffolds go; those named after what is in them go into the package, and tests/.
_PLACES: Final = MappingProxyType(
    {
        "LICENSE": "LICENSE",
        "README.md": "README.md",
        "__init__.py": "{module}/__init__.py",
        "gitignore": ".gitignore",
        "pipeline.toml": "pipeline.toml",
        "pyproject.toml": "pyproject.toml",
        "test.py": "tests/test_{component_}.py",
        "test.yml": ".github/workflows/test.yml",
    }
)
# What each kind of example imports beside attrs and textgen, at the versions that textgen itself asks for.
_IMPORTS: Final = MappingProxyType(
    {
        "sampler": ("array-api-compat",),
        "tokenizer": ("numpy",),
        "model": ("torch",),
        "trainer": ("torch",),
        "command": ("click",),
    }
)


@attrs.frozen
class Names:
    """The names in a new package: `textgen-top-a` has the module `textgen_top_a` and the component `top-a`."""

    distribution: str

    @property
    def module(self) -> str:
        """The import name."""
        return self.distribution.replace("-", "_")

    @property
    def component(self) -> str:
        """What a pipeline's `type` says."""
        return self.distribution.removeprefix("textgen-")


def write_package(name: str, kind: str, parent: Path, plugins: PluginSet) -> Path:
    """Write the package `name`, with one component of a kind, to a folder of that name in `parent`; return the folder.

    `plugins` holds the names that are taken. Raises UsageError, and then leaves no files behind.
    """
    if kind not in KINDS:
        hint = nearest(kind, KINDS) or f"there are {', '.join(KINDS)}"
        raise UsageError(f"no kind of component is called {kind!r}; {hint}")
    names = Names(name)
    _check(names, kind, plugins)
    folder = parent / name
    try:
        if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is not an empty folder; choose another name, or move it away")
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}-") as temporary:
            made = Path(temporary) / name
            for path, text in _files(names, kind):
                file = made / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")
            if folder.exists():
                folder.rmdir()  # it is empty, and only POSIX lets a folder be renamed to one
            os.rename(made, folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _check(names: Names, kind: str, plugins: PluginSet) -> None:
    """Raise UsageError if a package or component of these names could not be published, installed or found."""
    name = names.distribution
    if not _DISTRIBUTION.fullmatch(name) or not _DISTRIBUTION.fullmatch(names.component):
        proposal = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f"; write {proposal!r}" if proposal != name and _DISTRIBUTION.fullmatch(proposal) else ""
        raise UsageError(
            f"{name!r} is not a name for a package: use lower-case words of letters and digits, joined by "
            f"hyphens, that begins with a letter, also after textgen-{hint}"
        )
    if keyword.iskeyword(names.module):
        raise UsageError(f"{name!r} is a keyword of Python and cannot be imported; write 'textgen-{name}'")
    installed = {normalized(found.name) for found in metadata.distributions() if found.name}
    if name in installed:
        raise UsageError(f"a distribution called {name!r} is installed; choose another name")
    if util.find_spec(names.module) is not None:
        raise UsageError(f"a module called {names.module!r} can be imported already; choose another name")
    taken = [offer.distribution for offer in plugins.offers(kind) if offer.name == names.component]
    if kind == "command" and names.component in COMMANDS:
        taken.append(OWN_DISTRIBUTION)
    if taken:
        raise UsageError(f"a {kind} called {names.component!r} is in {taken[0]}; choose another name")


def _files(names: Names, kind: str) -> Iterator[tuple[str, str]]:
    """Path and text of each file of a package."""
    folder = resources.files("textgen.tools") / "scaffolds"
    templates = {
        file.name.removesuffix(_SUFFIX): file
        for part in ("common", kind)  # what a kind has of its own counts
        for file in (folder / part).iterdir()
        if file.name.endswith(_SUFFIX)
    }
    values = _values(names, kind, templates)
    places = dict(_PLACES) | {f"{kind}.py": "{module}/{kind}.py"}
    for name, file in templates.items():
        if name in places:
            path = places[name].format(module=names.module, kind=kind, component_=names.component.replace("-", "_"))
            yield path, _fill(file, values)
    yield f"{names.module}/py.typed", ""


def _values(names: Names, kind: str, templates: dict[str, Traversable]) -> dict[str, str]:
    values = {
        "Class": names.component.title().replace("-", ""),
        "article": "An" if kind[0] in "aeiou" else "A",
        "component": names.component,
        "dependencies": ", ".join(json.dumps(requirement) for requirement in _dependencies(kind)),
        "distribution": names.distribution,
        "hook": next(hook for hook, of in HOOKS.items() if of == kind),
        "kind": kind,
        "module": names.module,
        "year": str(datetime.date.today().year),
    }
    module = _fill(templates["__init__.py"], values)
    # The first line of the config class's docstring, which `textgen plugins` shows too.
    values["summary"] = module.partition("Config:\n")[2].partition('"""')[2].partition('"""')[0].partition("\n")[0]
    return values | {"usage": _fill(templates["usage.md"], values)}


def _fill(file: Traversable, values: dict[str, str]) -> str:
    return Template(file.read_text(encoding="utf-8")).substitute(values)


def _dependencies(kind: str) -> list[str]:
    """Requirements: textgen from this minor version on, and others as textgen itself has them."""
    wanted = {"attrs", *_IMPORTS.get(kind, ())}
    own = requirements(OWN_DISTRIBUTION)
    major, minor = metadata.version(OWN_DISTRIBUTION).split(".")[:2]
    return sorted([*(own[name] for name in wanted), f"{OWN_DISTRIBUTION}>={major}.{minor}"])
