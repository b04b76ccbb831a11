"""What the tests of run directories share: a small text and pipeline, and one finished run made of
them.
"""

import shutil

import pytest
from commands import run_textgen
from small_run import prepare


@pytest.fixture
def folder(tmp_path):
    return prepare(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a finished run in it, and what its command printed. Not to be changed."""
    folder = prepare(tmp_path_factory.mktemp("trained"))
    return folder, run_textgen("run", "p.toml", folder=folder)


@pytest.fixture
def finished(trained, folder):
    """A copy of that run in `folder`, to spoil."""
    shutil.copytree(trained[0] / "runs", folder / "runs")
    return folder / "runs/p"
