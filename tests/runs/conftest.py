"""What the tests of run directories share: a small text and pipeline, and one finished run made of
them.
"""

import shutil

import pytest
from commands import run_textgen
from small_run import OTHER, interrupt, prepare, tables

import textgen


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


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """A finished run."""
    folder = prepare(tmp_path_factory.mktemp("base"))
    return textgen.run(tables(folder, "adamw", cell="gru"), output=folder / "run").path


@pytest.fixture
def base(started, folder):
    """A copy of it, in a folder that also has another text."""
    (folder / "other.txt").write_text(OTHER)
    return shutil.copytree(started, folder / "runs/base")


@pytest.fixture(scope="session")
def half(tmp_path_factory):
    """A run that was stopped with checkpoints of two steps."""
    folder = prepare(tmp_path_factory.mktemp("half"))
    interrupt(5, tables(folder, order="streams"), output=folder / "run")
    assert len(list((folder / "run/checkpoints").iterdir())) == 2
    return folder / "run"


@pytest.fixture
def unfinished(half, tmp_path):
    """A copy of it, to spoil."""
    return shutil.copytree(half, tmp_path / "run")


@pytest.fixture
def newest(unfinished):
    """The newest checkpoint of that."""
    return max(unfinished.glob("checkpoints/*"))
