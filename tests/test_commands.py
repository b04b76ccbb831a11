"""A command that a test runs in its own process is as one in a process of its own."""

import logging
import os
import signal
import sys
import threading
import warnings

import pytest
import torch
from commands import run_python, run_textgen

LEAVING_EVERYTHING = """
import logging, os, signal, sys, warnings
import click, torch
from textgen import Component, NoOptions, hookimpl
import textgen_helper

@click.command()
def leave():
    print(sys.stdin.read(), os.getcwd(), os.environ["GIVEN"])
    print("an error: \\udc80", file=sys.stderr)
    os.chdir("/")
    os.environ["LEFT"] = "yes"
    os.environ.pop("HOME", None)
    sys.path.insert(0, "/left")
    logging.getLogger("textgen").setLevel(logging.DEBUG)
    warnings.simplefilter("error")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(torch.get_num_threads() + 1)
    raise SystemExit(5)

@hookimpl
def textgen_commands():
    return [Component("leave", NoOptions, lambda config, context: leave)]
"""


def state():
    logger = logging.getLogger("textgen")
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "path": [*sys.path],
        "streams": [sys.stdin, sys.stdout, sys.stderr],
        "logging": [*logger.handlers, logger.level],
        "warnings": [*warnings.filters, warnings.showwarning, dict(warnings.onceregistry)],
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "torch": torch.get_num_threads(),
        "threads": threading.enumerate(),
        "plugins": [name for name in sys.modules if name.startswith("textgen_plugin_leaving")],
        "helper": sys.modules.get("textgen_helper"),
    }


@pytest.fixture
def leaving(tmp_path):
    """A folder with a plugin that changes whatever it can, and what that imports."""
    (tmp_path / "leaving.py").write_text(LEAVING_EVERYTHING)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/textgen_helper.py").write_text("")
    return tmp_path


def test_nothing_is_left_of_a_command(leaving):
    before = state()
    command = ("--plugin", "leaving.py", "leave")
    options = {"folder": leaving, "site": [leaving / "site"], "extra": {"GIVEN": "given"}}
    here = run_textgen(*command, **options, stdin="a text\nof two lines")
    assert state() == before
    alone = run_python("-m", "textgen", *command, **options, stdin="a text\nof two lines")
    assert here.stdout == alone.stdout == f"a text\nof two lines {leaving} given\n"
    assert (here.returncode, here.stderr) == (alone.returncode, alone.stderr)


WARNING = """
import warnings
from textgen import PluginWarning
for _ in range(2):
    warnings.warn("of a plugin", PluginWarning)
    warnings.warn("of another", UserWarning)
    warnings.warn("for its author", DeprecationWarning)
"""


def test_a_warning_is_shown_once_by_every_command(tmp_path):
    (tmp_path / "warning.py").write_text(WARNING)
    command = ("--plugin", "warning.py", "plugins")
    shown = [run_textgen(*command, folder=tmp_path).stderr for _ in range(2)]
    assert shown[0] == shown[1] == run_python("-m", "textgen", *command, folder=tmp_path).stderr
    assert shown[0].count("of a plugin") == 1
