"""`textgen --plugin FILE.py plugins check`, and what a plugin does when it is imported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import run_textgen

from textgen import PluginSet
from textgen.plugin import discovery
from textgen.testing import command_line

SAMPLER = """
from textgen import Component, NoOptions, hookimpl

@hookimpl
def textgen_samplers():
    return [Component("half", NoOptions, lambda config, context: lambda logits, history: logits / 2)]
"""
CORPUS = """
from textgen import Component, CorpusError, NoOptions, hookimpl

class Gone:
    def read(self):
        raise CorpusError("no such file: /gone.txt")

@hookimpl
def textgen_corpora():
    return [Component("gone", NoOptions, lambda config, context: Gone())]
"""
NEEDY = '''
import attrs
from textgen import Component, hookimpl, option

@attrs.frozen
class Needy:
    """Needs two."""

    by: float = option(help="what to divide by")
    add: float = option(help="what to add")

@hookimpl
def textgen_samplers():
    return [Component("nodefault", Needy, lambda config, context: lambda logits, history: logits / config.by)]
'''
BAD = "import os\nos.environ['X_FOO'] = '1'\n"


@pytest.mark.parametrize(
    ("top", "seen"),
    [("print('here')\n", "importing {file} wrote 'here\\n' to stdout"),
     (BAD, "importing {file} changed the environment (X_FOO)"),
     ("{{}}[{{}}]\n", "importing {file} failed: TypeError: unhashable type: 'dict' ({file}:1)")],
    ids=["prints", "environment", "raises"],
)  # fmt: skip
def test_the_import_of_a_file_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: str, seen: str
) -> None:
    monkeypatch.setenv("X_FOO", "0")  # so that it is put back
    file = tmp_path / "half.py"
    file.write_text(top.replace("{{}}", "{}") + SAMPLER)

    def discover() -> PluginSet:
        plugins = PluginSet()
        plugins.register_file(file)
        return plugins

    lines = command_line.check_named("half", discover, (), [str(file)])
    failed = next(line for status, _, line in lines if status == "failed")
    lines.close()
    assert "component-import" in failed
    assert seen.format(file=file) in failed


def test_a_file_is_built_and_called_in_another_process_too(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(SAMPLER)
    done = run_textgen("--plugin", "half.py", "plugins", "check", "half", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    passed = [line for line in done.stdout.splitlines() if line.startswith("ok")]
    assert any(line.endswith("component-import") for line in passed)
    assert any(line.endswith("component-process") for line in passed)
    assert len(set(passed)) == len(passed)


@pytest.mark.slow
def test_a_file_may_load_torch_which_a_package_may_not(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("import torch\n" + SAMPLER)
    done = run_textgen("--plugin", "half.py", "plugins", "check", "half", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"ok       sampler 'half' of {tmp_path / 'half.py'}: component-import" in done.stdout


def test_an_installed_plugin_that_changes_the_environment_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X_FOO", "0")  # so that it is put back
    (tmp_path / "textgen_half-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "textgen_half-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: textgen-half\nVersion: 1\n"
    )
    (tmp_path / "textgen_half-1.0.dist-info/entry_points.txt").write_text(
        "[textgen]\nhalf = textgen_half\n"
    )
    (tmp_path / "textgen_half.py").write_text(BAD + SAMPLER)
    monkeypatch.syspath_prepend(tmp_path)
    lines = command_line.check_named("half", PluginSet.discover, ())
    failed = next(line for status, _, line in lines if status == "failed")
    lines.close()
    assert "importing textgen_half changed the environment (X_FOO)" in failed


def test_a_file_whose_import_has_no_end_is_named_and_never_imported_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(discovery, "SLOW_SECONDS", 0.05)
    file = tmp_path / "hang.py"
    file.write_text("import time\nwhile True:\n    time.sleep(1)\n")

    def discover() -> PluginSet:
        raise AssertionError("it was imported")

    ((status, count, line),) = command_line.check_named(
        "hang", discover, (), [str(file)], time_limit=0.5
    )
    assert (status, count) == ("failed", 1)
    assert "component-ends: " in line
    assert re.search(
        rf"had not ended after 0\.5 s, in which it had 0\.\d s of CPU time \({re.escape(str(file))}:3\)",
        line,
    )
    assert [record.getMessage() for record in caplog.records] == [
        f"still importing plugin 'hang' ({file})"
    ]


def lines_of(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "half.py"
    file.write_text(text)

    def discover() -> PluginSet:
        plugins = PluginSet.discover()
        plugins.register_file(file)
        return plugins

    return [line for _, _, line in command_line.check_named("half", discover, (), [str(file)])]


def test_a_corpus_of_which_nothing_could_be_read_has_a_note(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, CORPUS)
    assert [line for line in lines if line.startswith("note: ")] == [
        f"note: corpus 'gone' of {tmp_path / 'half.py'}: nothing was read: no such file: /gone.txt"
    ]


def test_options_without_a_default_are_asked_for(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, NEEDY)
    assert line.endswith(
        "it has no default for nodefault.by and nodefault.add; check it with --set nodefault.by=VALUE "
        "--set nodefault.add=VALUE"
    )
