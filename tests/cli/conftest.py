"""What the tests of the command line share."""

import shutil
from functools import partial

import pytest


@pytest.fixture
def generate(textgen, finished_run, tmp_path):
    """`textgen generate RUN ARGUMENTS` in tmp_path."""
    return partial(textgen, "generate", finished_run, cwd=tmp_path)


@pytest.fixture
def evaluate(textgen, finished_run, tmp_path):
    """`textgen evaluate RUN ARGUMENTS` in tmp_path."""
    return partial(textgen, "evaluate", finished_run, cwd=tmp_path)


@pytest.fixture(scope="module")
def workplace(finished_run, tmp_path_factory):
    """A folder with a text, a pipeline of the same name and its run, as somebody has it who has
    just begun.
    """
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "my.txt").write_text("the clock struck nine and nobody came.\n" * 90)
    shutil.copy(finished_run / "pipeline.toml", folder / "my.toml")
    shutil.copytree(finished_run, folder / "runs/my")
    return folder


@pytest.fixture(scope="session")
def terminal():
    """The module `terminal`; a test that wants it is skipped on a system without terminals."""
    pytest.importorskip("termios", reason="this system has no pseudo-terminals")
    from cli import terminal

    return terminal


@pytest.fixture
def shown(terminal):
    """Run Python on a terminal: `shown("-m", "textgen", "plugins", cwd=folder)`; gives its exit
    code and what was on the screen.
    """
    return terminal.shown


@pytest.fixture
def begin(terminal, tmp_path):
    """Open a session in tmp_path, at its first prompt: `begin(run, "--seed", "4")`."""
    terminals = []

    def make(*arguments, **variables):
        terminals.append(terminal.Terminal("generate", *arguments, cwd=tmp_path, **variables))
        assert "/set KEY=VALUE" in terminals[-1].read_to("\n> ")
        return terminals[-1]

    yield make
    for opened in terminals:
        opened.close()
