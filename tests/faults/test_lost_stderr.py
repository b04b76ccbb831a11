"""A stderr that is lost ends no run."""

import os
import subprocess
import sys

import pytest


def full():
    return os.open("/dev/full", os.O_WRONLY)


def left():
    """A pipe whose reader has gone, as after `2>&1 >/dev/null | head -5`."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def hung_up():
    """A terminal that was closed; a process that ignores SIGHUP outlives it."""
    terminal, process = os.openpty()
    os.close(terminal)
    return process


@pytest.mark.parametrize(
    "lost",
    [
        left,
        pytest.param(full, marks=[pytest.mark.linux, pytest.mark.slow]),
        pytest.param(hung_up, marks=[pytest.mark.unix, pytest.mark.slow]),
    ],
)
def test_a_lost_stderr_ends_no_run(tmp_path, tiny_pipeline, write_pipeline, textgen, lost):
    write_pipeline(tiny_pipeline(observers=True))
    stderr = lost()
    try:
        with open(os.devnull, "rb") as null, (tmp_path / "texts").open("wb") as texts:
            for name, code in (("pipeline.toml", 0), ("missing.toml", 2)):
                command = [sys.executable, "-m", "textgen", "run", name]
                streams = {"stdin": null, "stdout": texts, "stderr": stderr}
                done = subprocess.run(command, cwd=tmp_path, **streams, check=False)
                assert done.returncode == code
    finally:
        os.close(stderr)
    again = textgen("run", "pipeline.toml", cwd=tmp_path)
    assert again.stderr.startswith("skipped: ")
    assert again.stdout == (tmp_path / "texts").read_text()
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 6


@pytest.mark.linux
def test_a_full_disk_under_stderr_leaves_the_exit_code(tmp_path):
    """With the streams that Python itself has made."""
    command = [sys.executable, "-m", "textgen", "show", "missing.toml"]
    with open("/dev/full", "wb") as disk:
        assert subprocess.run(command, cwd=tmp_path, stderr=disk, check=False).returncode == 2
