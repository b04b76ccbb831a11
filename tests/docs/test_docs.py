"""The documentation says what is there, and what it shows works."""

import inspect
import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import click
import pluggy
import pytest
from commands import run_python

from textgen import Engine
from textgen.cli.app import CommandContext, group
from textgen.plugin import hookspecs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"^(?P<mark><!-- run -->\s*\n+)?```(?P<language>\w+)\n(?P<body>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"^\$ (?:[^\n]*[| ])?textgen ((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
REST = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn"},
    "trainer": {"type": "sgd"},
}


def fences(page, language=""):
    """The code blocks of a page, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if language in ("", match["language"]):
            yield text[: match.start("body")].count("\n") + 1, match


def blocks(language):
    """The code blocks of a language in docs/*.md and the README, as parameters of a test."""
    return [
        pytest.param(match["body"], id=f"{page.name}:{line}")
        for page in sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
        for line, match in fences(page, language)
    ]


def hooks():
    """Each hook's name and signature."""
    manager = pluggy.PluginManager("textgen")
    manager.add_hookspecs(hookspecs)
    return {
        name: f"{name}{inspect.signature(value)}".replace("'", "")
        for name, value in vars(hookspecs).items()
        if manager.parse_hookspec_opts(hookspecs, name) is not None
    }


@pytest.mark.parametrize("name", list(hooks()))
def test_every_hook_is_documented_with_its_signature(name):
    assert hooks()[name] in (DOCS / "hooks.md").read_text(encoding="utf-8")
    assert getattr(hookspecs, name).__doc__


@pytest.mark.parametrize("body", blocks("toml"))
def test_every_table_of_a_pipeline_passes(body):
    """A block that has only some of the tables is a part of a pipeline with the usual others."""
    tables = tomllib.loads(body)
    if {"project", "tool", "build-system"} & tables.keys():
        return
    if re.search(r"^start = ", body, re.MULTILINE):
        pytest.skip("a finished run is needed")
    Engine().pipeline(REST | tables)


@pytest.mark.parametrize(
    "path", sorted((DOCS / "pipelines").glob("*.toml")), ids=lambda path: path.name
)
def test_every_example_pipeline_passes(path):
    Engine().pipeline(path)


@pytest.mark.parametrize("body", blocks("python"))
def test_every_python_block_compiles(body):
    compile(textwrap.dedent(body), "block", "exec")


def pages_that_run():
    slow = ("comparing-runs.md", "embedding.md", "python-api.md")  # which train runs
    return [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in slow else [])
        for page in sorted(DOCS.glob("*.md"))
        if any(match["mark"] for _, match in fences(page))
    ]


@pytest.mark.parametrize("page", pages_that_run())
def test_every_block_marked_to_run_runs(page, tmp_path):
    """The blocks of a page run one after the other in one process and folder, as in a notebook."""
    script = "import runpy\nnames = {}\n"
    for line, match in fences(page):
        if match["mark"]:  # a traceback has the line of the page
            (tmp_path / f"block_{line}.py").write_text("\n" * (line - 1) + match["body"], "utf-8")
            script += f"names = runpy.run_path('block_{line}.py', names, '__main__')\n"
    (tmp_path / "page.py").write_text(script)
    done = run_python("-W", "error", "page.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def commands():
    return [
        pytest.param(match[1], id=f"{page.name}:{number}")
        for page in sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
        for line, block in fences(page, "console")
        for number, match in enumerate(COMMAND.finditer(block["body"]), line)
    ]


@pytest.mark.parametrize("line", commands())
def test_every_command_line_is_one(line):
    """Its command and options exist. Values and files are not looked at."""
    words = shlex.split(line.replace("\\\n", " "), comments=True)
    words = words[: next((i for i, word in enumerate(words) if word in (">", "|")), None)]
    if {"desk", "huggingface-export", "serve"} & {*words}:
        pytest.skip("its package is not installed")
    context = click.Context(group, info_name="textgen", obj=CommandContext())
    while isinstance(context.command, click.Group):
        _, words, _ = context.command.make_parser(context).parse_args(args=words)
        if not words:
            return
        name, command, words = context.command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    context.command.make_parser(context).parse_args(args=words)
