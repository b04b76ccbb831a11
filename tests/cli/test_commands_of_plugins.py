"""Commands that plugins offer: listed by their summary, built when they are used, and blamed on
their plugin.
"""

import re
from functools import partial

from commands import run_textgen
from installing import write_package

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


def test_the_help_builds_no_command(tmp_path):
    """Those that need large libraries do not slow it, and one that cannot be built is blamed when
    it is used.
    """
    site = tmp_path / "site"
    write_package(site, "tally", BROKEN_COMMAND)
    run = partial(run_textgen, folder=tmp_path, site=[site])
    shown = run("--help")
    assert shown.returncode == 0
    assert re.search("\n  tally +Counts something.\n", shown.stdout)
    without = run("--no-plugin", "tally", "--help")
    assert (without.returncode, without.stderr) == (0, "")
    assert "tally" not in without.stdout
    asked = run("tally")
    assert asked.returncode == 1
    assert "textgen-tally 1.0" in asked.stderr
    assert "a_module_that_nobody_has" in asked.stderr.splitlines()[-1]


def test_what_a_command_raises_is_blamed_on_its_plugin(tmp_path):
    """What is for the user stays as it is."""
    site = tmp_path / "site"
    raising = "click.command()(lambda: click.get_current_context().exit(3) or 1 / 0)"
    body = f"return click.Group(commands={{'a': {raising}, 'b': click.command()(lambda: 1 / 0)}})"
    source = BROKEN_COMMAND.replace("import a_module_that_nobody_has", f"import click; {body}")
    write_package(site, "tally", source)
    asked, failed = (run_textgen("tally", name, folder=tmp_path, site=[site]) for name in "ab")
    assert (asked.returncode, asked.stderr) == (3, "")
    assert failed.returncode == 1
    assert "plugin 'tally' (textgen-tally 1.0): command 'tally' failed: Zero" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_a_command_that_its_defaults_cannot_make_spoils_no_help(tmp_path):
    site = tmp_path / "site"
    options = '"Counts something."\n    k: int'
    write_package(site, "tally", BROKEN_COMMAND.replace('"Counts something."', options))
    for arguments, code in ((["--help"], 0), (["tally"], 2), (["plugins"], 0)):
        done = run_textgen(*arguments, folder=tmp_path, site=[site])
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert "left out: plugin 'tally' (textgen-tally 1.0): textgen_commands:" in done.stderr
        assert "missing 1 required positional argument: 'k'" in done.stderr
    assert "left out: tally [textgen-tally 1.0]" in done.stdout
