"""The machine: clocks that jump, file systems that lack something, files that change under a
process, signals.
"""

import errno
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from commands import run_python
from raising import raises
from small_run import assert_same

import textgen
from textgen.cli.signal_switch import SignalSwitch
from textgen.events import Checkpointed

JUMPING = """
import sys, time
real, jumps = time.time, iter(range(1, 1_000_000))
time.time = lambda: real() + (-1) ** (n := next(jumps)) * n * 1e6  # to and fro, ever further
from textgen.cli import main
main(sys.argv[1:])
"""


@pytest.mark.fault(13)
def test_a_clock_that_jumps_changes_nothing(tmp_path, tiny_pipeline, write_pipeline):
    write_pipeline(tiny_pipeline(observers=True, checkpoint={"seconds": 0.01}))
    (tmp_path / "jumping.py").write_text(JUMPING)
    for command, output in ((("-m", "textgen"), "still"), (("jumping.py",), "jumped")):
        done = run_python(*command, "run", "pipeline.toml", "--output", output, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "still", tmp_path / "jumped")
    seconds = [row["seconds"] for row in textgen.summarize(tmp_path / "jumped").metrics()]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 1000


LACKING = """
import errno, fcntl, os, stat, sys

def refuse(number):
    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))
    return refused

sync = os.fsync
def sync_of_files(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        refuse(errno.EINVAL)()
    sync(descriptor)

fcntl.flock, os.fsync = refuse(errno.ENOTSUP), sync_of_files
from textgen.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.unix
def test_a_file_system_without_locks_is_enough(tmp_path, tiny_pipeline, write_pipeline):
    """Its folders cannot be synced either, as those of some network drives."""
    write_pipeline(tiny_pipeline())
    (tmp_path / "lacking.py").write_text(LACKING)
    for options in ((), ("--overwrite",)):
        command = ("lacking.py", "run", "pipeline.toml", "--quiet", *options)
        done = run_python(*command, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (
            ".lock cannot be locked: Operation not supported; let one process at a" in done.stderr
        )
    assert textgen.load(tmp_path / "run").generate("the ").text


@pytest.mark.fault(11)
def test_weights_that_change_under_a_process_change_nothing_in_it(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    generator = textgen.load(run)
    before = generator.generate("the ", seed=1).text
    with (run / "model.safetensors").open("r+b") as file:
        file.truncate(10)
    assert generator.generate("the ", seed=1).text == before
    (run / "model.safetensors").write_bytes(b"\0" * 100_000)
    assert generator.generate("the ", seed=1).text == before


@pytest.mark.fault(8)
@pytest.mark.unix
def test_a_hang_up_that_is_ignored_stays_ignored():
    """As by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalSwitch() as switch:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not switch.is_on()
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            with SignalSwitch() as other:
                os.kill(os.getpid(), signal.SIGHUP)
                assert other.signal_number == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_folder_that_no_run_wrote_is_not_removed(tiny_pipeline):
    foreign = textgen.run(tiny_pipeline()).path / "checkpoints/step-000001"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("the only copy")
    (foreign.parent / "step-1").mkdir()
    for overwrite in (True, False):
        textgen.run(tiny_pipeline(), overwrite=overwrite)
        assert (foreign / "mine.txt").read_text() == "the only copy"
        assert (foreign.parent / "step-1").is_dir()


def test_a_run_that_is_moved_while_it_trains_says_so(tmp_path, tiny_pipeline):
    """Also where a file to be read is the first that it misses, such as the checkpoint that becomes
    the model.
    """
    tables = tiny_pipeline(checkpoint={"seconds": 0})
    steps = textgen.summarize(textgen.run(tables, output=tmp_path / "whole").path).steps

    def move(event):
        if isinstance(event, Checkpointed) and event.step == steps:
            (tmp_path / "run").rename(tmp_path / "moved")

    with pytest.raises(FileNotFoundError) as caught:
        textgen.run(tables, observers=[move])
    assert Path(caught.value.filename).is_relative_to(tmp_path / "run")
    (tmp_path / "moved").rename(tmp_path / "run")
    assert textgen.run(tables).outcome == "resumed"


@pytest.mark.parametrize("refusals", [3, 12])
def test_a_rename_that_windows_refuses_for_a_while_is_tried_again(
    tiny_pipeline, monkeypatch, refusals
):
    """Simulated: somebody has each file open when it is to be renamed, for a while or for ever."""
    replace, seen = os.replace, Counter[str]()

    def refuse(source, target):
        seen[str(source)] += 1
        if seen[str(source)] <= refusals:
            raise PermissionError(errno.EACCES, "Access is denied", str(source), 5, str(target))
        replace(source, target)

    monkeypatch.setattr("os.replace", refuse)
    monkeypatch.setattr("textgen.files.durable._RENAME_PAUSES", (0.0,) * 9)
    if refusals > 9:
        with raises(PermissionError, strerror="Access is denied"):
            textgen.run(tiny_pipeline())
    else:
        assert textgen.run(tiny_pipeline()).outcome == "trained"
        assert len(seen) > 3


def test_a_drive_that_is_not_there_is_one_line(tmp_path, tiny_pipeline, monkeypatch):
    """Simulated: the folder above all others is none, as Z:\\ on Windows."""
    is_dir, mkdir, top = Path.is_dir, Path.mkdir, Path(tmp_path.anchor)

    def made(path, *rest, **more):
        if path == top:
            raise FileNotFoundError(errno.ENOENT, "The system cannot find the path", str(path))
        mkdir(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_dir", lambda path: path != top and is_dir(path))
        patched.setattr(Path, "mkdir", made)
        with raises(textgen.RunError, path=Path("/drive/run")):
            textgen.run(tiny_pipeline(), output="/drive/run")
