"""What spoils a run: disks, devices, losses that are no numbers, too little memory."""

import errno
import re

import pytest
from commands import run_python, run_textgen
from raising import raises
from small_run import TEXT, record_of, tables

import textgen
from textgen import devices
from textgen.runs import checkpoints


@pytest.mark.fault(10)
def test_an_output_that_cannot_be_written_is_an_error_before_training(folder):
    done = run_textgen("run", "p.toml", "--output", "text.txt/run", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "text.txt/run cannot be written to" in line
    assert (folder / "text.txt").read_text() == TEXT


@pytest.mark.fault(35)
@pytest.mark.skipif(devices.resolve("auto") == "cuda", reason="there is a CUDA device here")
def test_a_missing_device_is_an_error(folder, trained):
    for command in (("run", "p.toml"), ("generate", trained[0] / "runs/p")):
        done = run_textgen(*command, "--device", "cuda", folder=folder)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "'cuda'" in line
        assert "device to cpu" in line
    assert not (folder / "runs").exists()


def test_a_run_that_diverges_is_not_finished(folder):
    pipeline, path = tables(folder), folder / "run"
    pipeline["trainer"]["learning_rate"] = 1000
    for _ in range(2):
        with pytest.raises(textgen.TrainingError):
            textgen.run(pipeline, output=path)
        assert record_of(path)["status"] == "unfinished"
    assert textgen.Engine().finish(path)


def test_a_full_disk_says_how_much_room_is_needed(folder, monkeypatch):
    def fill(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "disk")

    monkeypatch.setattr(checkpoints, "write_synced", fill)
    with raises(OSError, errno=errno.ENOSPC) as caught:
        textgen.run(tables(folder), output=folder / "run")
    assert re.search(r"[0-9.]+ kB", str(caught.value))


@pytest.mark.linux
def test_a_full_disk_under_stdout_is_one_line(tmp_path):
    (tmp_path / "out").symlink_to("/dev/full")
    done = run_python(
        "-c",
        "import os, sys; os.dup2(os.open('out', os.O_WRONLY), 1); from textgen.cli import "
        "main; main(['plugins'])",
        folder=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == "textgen: error: No space left on device\n"


@pytest.mark.fault(35)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_model_too_large_for_memory_is_one_line(folder, device):
    """A trillion weights: four terabytes, which no allocator grants."""
    changes = ("--set", "model.hidden_size=1000000", "--device", device)
    done = run_textgen("run", "p.toml", *changes, folder=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("textgen: error: out of memory; lower ")
    assert len(done.stderr.splitlines()) == 1
