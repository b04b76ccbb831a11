"""The pytest plugin that comes with textgen: its fixtures, and what a failed check shows."""

import os
import re
import subprocess
import sys
from importlib import metadata

import pytest
from checking import PLUGIN

FIXTURES = """
from importlib import metadata
from pathlib import Path

import attrs
from textgen import Component, NoOptions, hookimpl


@attrs.frozen
class Plugin:
    @staticmethod
    @hookimpl
    def textgen_samplers():
        return [Component("first", NoOptions, lambda config, context: forbid_all_but_first)]


def forbid_all_but_first(logits, history):
    changed = logits.copy()
    changed[:, 2:] = -float("inf")
    return changed


def test_runs(tiny_pipeline, run_pipeline, textgen_plugins, tiny_corpus, tmp_path, capfd):
    assert {o.plugin.distribution for o in textgen_plugins.offers()} == {"textgen-engine"}
    assert tiny_corpus.parent == tmp_path and len(tiny_corpus.read_text("utf-8")) > 1000
    textgen_plugins.register(Plugin(), "mine")
    tiny_pipeline["sampler"] = [{"type": "first"}]
    run = run_pipeline(tiny_pipeline, ["generate.max_new_tokens=7"])
    assert run.path == tmp_path / "run"
    assert set(run.generations[0].tokens) <= {0, 1} and len(run.generations[0].tokens) == 7
    assert capfd.readouterr() == ("", "")
"""
LOADED = (
    "import sys\ndef test_light():\n    assert not {'torch', 'numpy', 'hypothesis'} "
    "& set(sys.modules)\n"
)


def run_pytest(folder, *arguments, **variables):
    """The exit code and the output of pytest in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_fixtures_run_a_pipeline_and_cost_nothing_unused(tmp_path):
    (tmp_path / "test_a_light.py").write_text(LOADED)
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    options = ["-Werror", "-ptextgen.testing.pytest_plugin", "-pno:randomly"]
    code, said = run_pytest(tmp_path, *options, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert code == 0, said
    assert "2 passed" in said
    assert "warning" not in said.lower()


def test_pytest_finds_the_fixtures_by_itself():
    found = {each.value for each in metadata.entry_points(group="pytest11")}
    assert "textgen.testing.pytest_plugin" in found


@pytest.mark.slow
def test_pytest_shows_the_test_and_the_component_and_not_the_suite(tmp_path):
    (tmp_path / "plugin_of_one.py").write_text(PLUGIN.replace("logits * 0.5", "logits[:, 1:]"))
    test = (
        "from textgen.testing import check_plugin\ndef test_contracts():\n    "
        "check_plugin('plugin_of_one')\n"
    )
    (tmp_path / "test_one.py").write_text(test)
    _, said = run_pytest(tmp_path, "-pno:cacheprovider", "test_one.py")
    assert re.search(r"seen: logits \(\d+, 36\) .* came back as \(\d+, 35\)", said)
    assert len(said.splitlines()) < 20
