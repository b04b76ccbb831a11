"""textgen new-plugin: writes new plugin packages that install, pass their tests and run."""

from __future__ import annotations

import datetime
import json
import keyword
import re
from collections.abc import Iterator, Mapping
from importlib import util
from pathlib import Path
from string import Template
from typing import Any, Final

import click

import textgen
from textgen import UsageError
from textgen.plugin import COMMANDS, HOOKS, requirements

_DISTRIBUTION: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEXTGEN: Final = "textgen-engine"
_SUFFIX: Final = ".template"
_INIT: Final = "{module}/__init__.py"
_KINDS: Final = [kind for kind in HOOKS.values() if kind != "run"]  # which is data
# What each kind of example imports beside attrs and textgen, at the versions that textgen itself
# asks for.
_IMPORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "sampler": ("array-api-compat",),
    "tokenizer": ("numpy",),
    "model": ("torch",),
    "trainer": ("torch",),
    "objective": ("torch",),
    "strategy": ("numpy",),
    "command": ("click",),
}


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(_KINDS), required=True, help="Kind of component.")
@click.pass_obj
def new_plugin(context: Any, name: str, kind: str) -> None:
    """Write a plugin package to a new folder NAME: it installs, passes its tests and runs at once.

    NAME is the name of the distribution, such as textgen-whisper. The component is called what
    comes after textgen-.
    """
    # `textgen-top-a` has the module `textgen_top_a` and the component `top-a`
    module, component = name.replace("-", "_"), name.removeprefix("textgen-")
    if not _DISTRIBUTION.fullmatch(name) or not _DISTRIBUTION.fullmatch(component):
        raise UsageError(
            f"{name!r} is not a name for a package: use lower-case words of letters and digits, "
            "joined by hyphens, that begin with a letter, also after textgen-"
        )
    if keyword.iskeyword(module) or util.find_spec(module) is not None:
        raise UsageError(
            f"{module!r} is a module or keyword of Python already; choose another name"
        )
    taken = {offer.name for offer in context.plugins.offers(kind)}
    if component in taken or (kind == "command" and component in COMMANDS):
        raise UsageError(f"there is a {kind} called {component!r} already; choose another name")
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"{folder} exists and is not empty; choose another name, or move it away")
    for path, text in _files(name, module, component, kind):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    click.echo(
        f"wrote {folder}; now:\n"
        f"  cd {folder}\n"
        "  pip install -e '.[test]'\n"
        "  pytest\n"
        "  textgen run pipeline.toml",
        err=True,
    )


def _files(name: str, module: str, component: str, kind: str) -> Iterator[tuple[str, str]]:
    """Path and text of each file of a package."""
    templates = {
        file.relative_to(part).as_posix().removesuffix(_SUFFIX): file.read_text(encoding="utf-8")
        for part in map(Path(__file__).with_name("scaffolds").joinpath, ("common", kind))
        for file in sorted(part.rglob(f"*{_SUFFIX}"))  # what a kind has of its own counts
    }
    usage, hook = templates.pop("usage.md"), templates.pop("hook.py")
    templates[_INIT] += hook
    # Tables of its own, the component's first, take the place of those in the pipeline that all
    # kinds have.
    own = _tables(templates.pop("tables.toml", ""))
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
    documented = templates[_INIT].partition("\n@attrs.frozen")[2].partition('"""')[2]
    values["summary"] = Template(documented.partition('"""')[0].partition("\n")[0]).substitute(
        values
    )
    values["table"] = Template(next(iter(own.values()), "")).substitute(values)
    values["usage"] = Template(usage).substitute(values)
    for path, text in templates.items():
        name = path.format(module=module, component_=component.replace("-", "_"))
        yield name, Template(text).substitute(values)
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
    own = requirements(_TEXTGEN)
    major, minor = textgen.__version__.split(".")[:2]
    return sorted(
        [
            # its marker tells which Python textgen itself runs on
            *(own[name].partition(";")[0] for name in ("attrs", *_IMPORTS.get(kind, ()))),
            f"{_TEXTGEN}>={major}.{minor}",
        ]
    )
