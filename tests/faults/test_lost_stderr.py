"""A stderr that is lost ends no run."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tables = Callable[..., dict[str, Any]]


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def left() -> int:
    """A pipe whose reader has gone, as after `2>&1 >/dev/null | head -5`."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def hung_up() -> int:
    """A terminal that was closed; a process that ignores SIGHUP outlives it."""
    terminal, process = os.openpty()
    os.close(terminal)
    return process


@pytest.mark.parametrize("lost", [full, left, hung_up])
def test_a_lost_stderr_ends_no_run(
    tmp_path: Path, tiny_pipeline: Tables, write_pipeline: Any, textgen: Any, lost: Callable[[], int]
) -> None:
    write_pipeline(tiny_pipeline(observers=True))
    stderr = lost()
    try:
        codes = []
        for name in ("pipeline.toml", "missing.toml"):
            command = [sys.executable, "-m", "textgen", "run", name]
            done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr, timeout=120)
            codes.append(done.returncode)
            if name == "pipeline.toml":
                text = done.stdout.decode()
    finally:
        os.close(stderr)
    assert codes == [0, 2]
    again = textgen("run", "pipeline.toml", cwd=tmp_path)
    assert again.stderr.startswith("skipped: ")
    assert (again.stdout, len((tmp_path / "run/metrics.jsonl").read_text().splitlines())) == (text, 6)


def test_a_terminal_that_closes_in_the_middle_ends_no_run(
    tmp_path: Path, tiny_pipeline: Tables, write_pipeline: Any
) -> None:
    """Its bar is there, and can be drawn no more."""
    import fcntl
    import termios

    write_pipeline(tiny_pipeline(observers=True, trainer={"type": "sgd", "epochs": 6, "batch_size": 4}))
    terminal, stderr = os.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # without a width there is no bar
    command = [sys.executable, "-m", "textgen", "run", "pipeline.toml"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=stderr) as process:
        os.close(stderr)
        seen = b""
        while b"%|" not in seen:
            seen += os.read(terminal, 1000)
        os.close(terminal)
        assert process.wait(timeout=120) == 0
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"
