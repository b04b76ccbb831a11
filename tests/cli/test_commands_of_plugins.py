"""Commands that plugins offer: listed by their summary, built when they are used, and blamed on their plugin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import run_textgen

BROKEN_COMMAND = """\
import attrs
from textgen import Component, hookimpl

@attrs.frozen
class Config:
    "Counts something."

def build(config, context):
    import a_module_that_nobody_has

@hookimpl
def textgen_commands():
    return [Component("tally", Config, build)]
"""


def installed_tally(site: Path, source: str) -> None:
    """A package textgen-tally in `site` whose module is `source`."""
    info = site / "textgen_tally-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "textgen_tally.py").write_text(source, encoding="utf-8")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: textgen-tally\nVersion: 1.0\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text("[textgen]\ntally = textgen_tally\n", encoding="utf-8")


def test_the_help_builds_no_command(tmp_path: Path) -> None:
    """Those that need large libraries do not slow it, and one that cannot be built is blamed when it is used."""
    site = tmp_path / "site"
    installed_tally(site, BROKEN_COMMAND)
    shown = run_textgen("--help", folder=tmp_path, site=[site])
    assert shown.returncode == 0
    assert re.search("\n  tally +Counts something.\n", shown.stdout)
    without = run_textgen("--no-plugin", "tally", "--help", folder=tmp_path, site=[site])
    assert (without.returncode, without.stderr) == (0, "")
    assert "tally" not in without.stdout
    asked = run_textgen("tally", folder=tmp_path, site=[site])
    assert asked.returncode == 1
    assert "textgen-tally 1.0" in asked.stderr
    assert "a_module_that_nobody_has" in asked.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (
            "k: int",
            "component 'tally': Config.__init__() missing 1 required positional argument: 'k'",
        ),
        (
            "k: int = attrs.field(default=0, validator=attrs.validators.ge(1))",
            "component 'tally': 'k' must be >= 1",
        ),
        (
            "def __attrs_post_init__(self): raise ValueError('no')",
            "component 'tally': no",
        ),
    ],
)
def test_a_command_that_its_defaults_cannot_make_spoils_no_help(
    tmp_path: Path, field: str, said: str
) -> None:
    site = tmp_path / "site"
    installed_tally(
        site, BROKEN_COMMAND.replace('"Counts something."', f'"Counts something."\n    {field}')
    )
    for arguments, code in (
        (["--help"], 0),
        (["tally"], 2),
        (["plugins"], 0),
        (["--help", "tally"], 0),
    ):
        done = run_textgen(*arguments, folder=tmp_path, site=[site])
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert "plugin 'tally' (textgen-tally 1.0) is left out: textgen_commands:" in done.stderr
        assert said in done.stderr
    listed = run_textgen("plugins", folder=tmp_path, site=[site])
    assert "left out: tally [textgen-tally 1.0]" in listed.stdout
    examined = run_textgen("doctor", folder=tmp_path, site=[site])
    assert "left out: tally [textgen-tally 1.0]" in examined.stdout
    checked = run_textgen("plugins", "check", "tally", folder=tmp_path, site=[site])
    assert checked.stdout.startswith("FAILED   plugin 'tally'")
