"""What the tests share: the command as a process, a pipeline that trains at once, and one run made
of it.
"""

import gc
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
import tomli_w
from commands import run_python, run_textgen
from hypothesis import settings

TEXT = "the time traveller smiled, and the clock of the hall struck the hour.\n" * 12
BOOK = Path(__file__).parents[1] / "../shared/data/timemachine.txt"

# Runs are synced to the disk, again and again. In memory, that takes no time.
MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * 10**9:
    os.environ["TMPDIR"], tempfile.tempdir = str(MEMORY), None

# Models this small are slower with several threads, and far slower on a busy machine. Read when
# torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# The same examples every time, on a machine of any speed.
settings.register_profile(
    "textgen", derandomize=True, deadline=None, database=None, max_examples=50
)
settings.load_profile("textgen")


def pytest_collection_finish():
    """What is imported by now stays: the collections that checks ask for need not go through it
    each time.
    """
    gc.collect()
    gc.freeze()


@attrs.frozen
class Finished:
    """A process that has ended."""

    stdout: str
    stderr: str
    code: int


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_user(tmp_path_factory):
    """Take the variables that would change what textgen does out of this process, and so out of its
    children.

    The cache is one of the session, and that of mypy is shared by all its processes.
    """
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MYPY_CACHE_DIR", str(shared / "mypy"))
        for name in os.environ:
            if re.match("TEXTGEN_|(http|all|no)_proxy$", name, re.IGNORECASE):
                patch.delenv(name)
        yield


def _finished(run):
    def command(*arguments, cwd, env=None, site=(), stdin=""):
        done = run(*arguments, folder=cwd, extra=env, site=site, stdin=stdin)
        return Finished(done.stdout, done.stderr, done.returncode)

    return command


@pytest.fixture(scope="session")
def python():
    """Run this Python with arguments: `python("-c", "...", cwd=folder, env={"NAME": "value"})`."""
    return _finished(run_python)


@pytest.fixture(scope="session")
def textgen():
    """Run the command: `textgen("show", "pipeline.toml", cwd=folder)`; gives its stdout, stderr and
    exit code.
    """
    return _finished(run_textgen)


def make_tiny_pipeline(folder, *, text=TEXT, observers=False, **changes):
    """A pipeline as a mapping.

    A table among `changes` changes single keys, any other value replaces what is there.
    """
    corpus = folder / "corpus.txt"
    corpus.write_bytes(text.encode())
    tables = {
        "device": "cpu",
        "output": str(folder / "run"),
        "corpus": {"type": "file", "path": str(corpus)},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {"type": "sgd", "length": "2 epochs", "batch_size": 16},
        "generate": {"max_new_tokens": 10},
    }
    if not observers:
        tables["observer"] = []
    for key, value in changes.items():
        tables[key] = {**tables.get(key, {}), **value} if isinstance(value, Mapping) else value
    return tables


@pytest.fixture
def tiny_pipeline(tmp_path):
    """A pipeline that trains in well under a second: `tiny_pipeline(text=..., trainer={"length": "1
    epoch"})`.

    Its corpus is written to tmp_path, its run directory is tmp_path / "run", and it has no
    observers unless `observers=True` asks for the default ones.
    """

    def make(**changes):
        return make_tiny_pipeline(tmp_path, **changes)

    return make


@pytest.fixture
def write_pipeline(tmp_path):
    """Write a mapping as a TOML file in tmp_path: `write_pipeline(tables, "other.toml")`."""

    def write(tables, name="pipeline.toml"):
        path = tmp_path / name
        path.write_bytes(tomli_w.dumps(tables).encode())
        return path

    return write


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The run directory of a tiny trained model. Shared: copy it to change it."""
    from textgen import run

    return run(make_tiny_pipeline(tmp_path_factory.mktemp("finished"), seed=7)).path


@pytest.fixture(scope="module")
def generator(finished_run):
    """The generator of `finished_run`."""
    from textgen import load

    return load(finished_run)


@pytest.fixture(scope="module")
def lively(finished_run):
    """One with large random weights, whose greedy text does not settle."""
    import numpy as np

    from textgen import load

    made = load(finished_run)
    draw = np.random.default_rng(6)
    tensors = made.model.tensors()
    made.model.load_tensors(
        {n: draw.normal(0, 2, a.shape).astype(a.dtype) for n, a in sorted(tensors.items())}
    )
    assert len(set(made.generate("the ", max_new_tokens=100, temperature=0).tokens)) > 5
    return made


@pytest.fixture(scope="session")
def book():
    """The text of The Time Machine."""
    if not BOOK.is_file():
        pytest.skip("the text of The Time Machine is not at ../shared/data/timemachine.txt")
    return BOOK.resolve()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Neighbours stay in one process, for the fixtures that they share, until another process has
    nothing to do.
    """
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_runtest_setup(item):
    """Skip what this machine has not."""
    if item.get_closest_marker("gpu") and not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("there is no CUDA device")
    if item.get_closest_marker("unix") and os.name != "posix":
        pytest.skip("this system has no signals, links and pipes as Unix has")
    if item.get_closest_marker("linux") and sys.platform != "linux":
        pytest.skip("this is not Linux")
