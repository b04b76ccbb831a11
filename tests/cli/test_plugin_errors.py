"""What is wrong with a plugin, or with how it is given, is one line in the words of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import run_textgen


def install(folder: Path, source: str) -> Path:
    """A folder in which a package textgen-broken with this module is installed."""
    information = folder / "textgen_broken-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: textgen-broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[textgen]\nbroken = textgen_broken\n")
    (folder / "textgen_broken.py").write_text(source)
    return folder


@pytest.mark.parametrize("arguments", [["generate", "--help"], ["generate", "runs/p"], ["plugins"], ["--help"]])
def test_where_strict_a_broken_plugin_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    site = install(tmp_path / "site", "raise RuntimeError('boom')")
    strict = {"TEXTGEN_STRICT_PLUGINS": "1"}
    done = run_textgen(*arguments, folder=tmp_path, site=[site], extra=strict)
    (line,) = done.stderr.splitlines()
    said = "textgen: error: plugin 'broken' (textgen-broken 1.0): importing textgen_broken failed: RuntimeError: boom ("
    assert line.startswith(said)
    assert done.returncode == 1
    assert "Traceback" in run_textgen("--debug", *arguments, folder=tmp_path, site=[site], extra=strict).stderr
