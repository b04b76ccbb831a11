"""The pipeline of this package, run once for all tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, and no limit on their time: the machine may be busy.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

# Before torch is loaded, here and in the commands: on busy cores, small matrices take longest where
# threads share them.
os.environ["OMP_NUM_THREADS"] = "1"

PIPELINE = Path(__file__).parents[1] / "pipeline.toml"


@pytest.fixture(scope="session")
def textgen():
    """Runs the `textgen` command as a user does."""

    def command(*arguments, code=0):
        line = [sys.executable, "-m", "textgen", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == code, done.stderr
        return done

    return command


@pytest.fixture(scope="session")
def run(textgen, tmp_path_factory):
    """The run directory of this package's pipeline."""
    folder = tmp_path_factory.mktemp("runs") / "sine"
    textgen("run", PIPELINE, "--output", folder)
    return folder
