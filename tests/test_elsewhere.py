"""The tests on systems that have less than Linux, as far as Linux can show it."""

from pathlib import Path

import pytest
from commands import run_python

ROOT = Path(__file__).parents[1]
WITHOUT = """
import os, socket, sys
for name in ("pty", "termios", "resource"):
    sys.modules[name] = None
del os.fork, os.mkfifo, socket.send_fds
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""
RUNS = "tests/faults/test_lost_stderr.py::test_a_lost_stderr_ends_no_run[left]"
SKIPS = "tests/cli/test_session.py::test_a_text_is_continued"


@pytest.mark.slow
def test_without_forks_and_terminals_commands_are_tested_and_sessions_skipped(tmp_path):
    (tmp_path / "without.py").write_text(WITHOUT)
    own = ("-q", "-p", "no:cacheprovider", "--rootdir", ROOT)
    done = run_python(tmp_path / "without.py", *own, RUNS, SKIPS, folder=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
