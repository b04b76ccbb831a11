"""The documentation says what is there, and what it shows works."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pluggy
import pytest
from commands import run_with_torch

from textgen import Engine, PluginSet
from textgen.plugin import hookspecs
from textgen.tools.describe import describe

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    *(
        "index.md",
        "quickstart.md",
        "corpora.md",
        "pipelines.md",
        "training.md",
        "comparing-runs.md",
        "mixtures.md",
    ),
    *("verifying.md", "untrusted-runs.md", "scaling.md"),
    *("writing-plugins.md", "hooks.md", "python-api.md", "architecture.md", "seed.md"),
)
FENCE = re.compile(
    r"^(?P<mark><!-- run -->\s*\n+)?```(?P<language>\w+)\n(?P<body>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def hooks() -> dict[str, str]:
    """Each hook's name and signature."""
    manager = pluggy.PluginManager("textgen")
    manager.add_hookspecs(hookspecs)
    found = {}
    for name, value in vars(hookspecs).items():
        if manager.parse_hookspec_opts(hookspecs, name) is not None:
            found[name] = f"{name}{inspect.signature(value)}".replace("'", "")
    return found


def fences(language: str) -> list[Any]:
    """Every code block of a language in docs/*.md, as (its body, whether it is to be run)."""
    found = []
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match["language"] == language:
                line = text[: match.start("body")].count("\n") + 1
                case = pytest.param(match["body"], bool(match["mark"]), id=f"{path.name}:{line}")
                found.append(case)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_there(name: str) -> None:
    assert (DOCS / name).is_file(), f"docs/{name} is missing"
    assert (DOCS / name).read_text(encoding="utf-8").startswith("# ")


def test_there_are_hooks() -> None:
    assert len(hooks()) == 7


@pytest.mark.parametrize("name", list(hooks()))
def test_every_hook_is_documented_with_its_signature(name: str) -> None:
    assert (DOCS / "hooks.md").is_file(), "docs/hooks.md is missing"
    assert hooks()[name] in (DOCS / "hooks.md").read_text(encoding="utf-8")
    assert getattr(hookspecs, name).__doc__


def components() -> Iterator[Any]:
    for component in describe(PluginSet.discover())["components"]:
        if component["distribution"] == "textgen-engine":
            yield pytest.param(component, id=f"{component['kind']}-{component['name']}")


@pytest.mark.parametrize("component", list(components()))
def test_every_built_in_component_and_option_is_described(component: dict[str, Any]) -> None:
    assert component["summary"].endswith("."), component["summary"]
    for option in component["options"]:
        assert option["help"].strip(), (
            f"{component['kind']} {component['name']}: {option['name']} has no help"
        )


@pytest.mark.parametrize(("body", "run"), fences("toml"))
def test_every_toml_block_is_toml_and_every_whole_pipeline_passes(body: str, run: bool) -> None:
    tables = tomllib.loads(body)
    if {"corpus", "model"} <= tables.keys():
        Engine().pipeline(tables)


@pytest.mark.parametrize(
    "path", sorted((DOCS / "pipelines").glob("*.toml")), ids=lambda path: path.name
)
def test_every_example_pipeline_passes(path: Path) -> None:
    Engine().pipeline(path)


@pytest.mark.parametrize(("body", "run"), fences("python"))
def test_every_python_block_compiles(body: str, run: bool) -> None:
    if run or body.startswith("# file: ") or "import textgen" in body or "from textgen" in body:
        compile(body, "block", "exec")


@pytest.mark.parametrize(
    "body", [pytest.param(p.values[0], id=p.id) for p in fences("python") if p.values[1]]
)
def test_every_block_marked_to_run_runs(body: str, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(body, encoding="utf-8")
    done = run_with_torch("-W", "error", "block.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
