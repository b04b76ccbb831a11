"""What is wrong with a plugin, or with how it is given, is one line in the words of the command
line.
"""

from functools import partial

import pytest
from commands import run_textgen

RAISING = '''
import attrs, click
from textgen import Component, TextgenError, hookimpl

@attrs.frozen
class Config:
    """Raises."""

@click.command("raising")
@click.argument("name")
def raising(name):
    """Raises."""
    memory, expected = MemoryError(), TextgenError("no prompt")
    raise {"memory": memory, "expected": expected, "fault": IndexError(3)}[name]

@hookimpl
def textgen_commands():
    return [Component("raising", Config, lambda config, context: raising)]
'''


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["raising", "memory"], "error: out of memory"),
        (["raising", "expected"], "error: no prompt"),
        (["raising", "fault"], "error: plugin 'mine' ("),
        (["plugins", "--json"], "this is a bug in textgen or a"),
    ],
)
def test_debug_adds_the_traceback_and_takes_nothing_away(tmp_path, monkeypatch, arguments, said):
    monkeypatch.setattr("textgen.cli.plugins.json", None)  # a bug in textgen
    (tmp_path / "mine.py").write_text(RAISING)
    plain, more = (
        run_textgen("--plugin", "mine.py", *debug, *arguments, folder=tmp_path)
        for debug in ([], ["--debug"])
    )
    last = plain.stderr.splitlines()[-1]
    assert last.startswith(f"textgen: {said}")
    assert (more.stderr.splitlines()[-1], more.returncode) == (last, plain.returncode)
    is_traced = ["Traceback" in each.stderr for each in (plain, more)]
    assert is_traced == ["this is a bug" in said, True]


TOP_K = '''
import attrs
from textgen import Component, hookimpl


@attrs.frozen
class OneConfig:
    """Leaves one token possible."""


def one(logits, history):
    changed = logits - float("inf")
    changed[:, 3] = 0.0
    return changed


@hookimpl
def textgen_samplers():
    return [Component("top-k", OneConfig, lambda config, context: one)]
'''


def test_what_builds_no_command_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(RAISING.replace("context: raising", "context: None"))
    done = run_textgen("--plugin", "mine.py", "raising", "memory", folder=tmp_path)
    assert "command 'raising' gave NoneType from build" in done.stderr


def test_a_file_is_named_where_it_is_given(tmp_path):
    for path in ("boom.py", "other.py"):
        (tmp_path / path).write_text(TOP_K)
    done = run_textgen("--plugin", "boom.py", "--plugin", "other.py", "plugins", folder=tmp_path)
    first, second = (f"plugin '{name}' ({tmp_path / name}.py)" for name in ("boom", "other"))
    said = f"{second}: {first} offers the sampler 'top-k' already; one of the two needs another"
    assert (done.returncode, done.stderr) == (1, f"textgen: error: {said} name\n")


@pytest.mark.fault(28)
def test_a_name_that_a_file_and_a_built_in_have_is_ambiguous(
    tmp_path, tiny_pipeline, write_pipeline
):
    (tmp_path / "marker.py").write_text(TOP_K)
    marked = partial(run_textgen, "--plugin", "marker.py", folder=tmp_path)
    failed = marked("run", write_pipeline(tiny_pipeline(sampler=[{"type": "top-k"}])))
    assert failed.returncode == 2
    assert "write 'textgen-engine:top-k' or 'unpackaged:top-k'" in failed.stderr
    for name, is_marked in {"textgen-engine:top-k": False, "unpackaged:top-k": True}.items():
        pipeline = write_pipeline(tiny_pipeline(sampler=[{"type": name}]))
        for command in (("run", pipeline, "--overwrite"), ("generate", "run", "--no-echo")):
            done = marked(*command)
            assert done.returncode == 0, done.stderr
            assert (len(set(done.stdout.strip("\n"))) == 1) is is_marked  # one token, repeated
