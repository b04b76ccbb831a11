"""Faults of the disk and of other processes, and what stands in a run's way: nothing is lost, and no run is stuck."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import textgen

Tables = Callable[..., dict[str, Any]]


def interrupt(tables: dict[str, Any], steps: int = 3) -> Path:
    """A run that was stopped after some steps and a checkpoint; the folder of its checkpoints."""
    asked = iter(range(steps))
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables, cancelled=lambda: next(asked) == steps - 1)
    return Path(tables["output"]) / "checkpoints"


# A checkpoint that is not whole.


AT_THE_MANIFEST = """
import errno, os, sys

def at_the_manifest(event, arguments):
    if event == "open" and str(arguments[0]).endswith("manifest.json") and str(arguments[1])[0] == "w":
        if sys.argv[1] == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.close(os.open(arguments[0], os.O_CREAT | os.O_WRONLY))
        os._exit(9)

sys.addaudithook(at_the_manifest)
from textgen.cli import main
main(["run", "pipeline.toml"])
"""


@pytest.mark.parametrize("again", [(), ("--overwrite",)], ids=["again", "overwrite"])
def test_killed_as_it_opens_a_manifest_the_run_goes_on(
    tmp_path: Path, tiny_pipeline: Tables, write_pipeline: Any, python: Any, textgen: Any, again: tuple[str, ...]
) -> None:
    write_pipeline(tiny_pipeline())
    assert python("-c", AT_THE_MANIFEST, "killed", cwd=tmp_path).code == 9
    (manifest,) = tmp_path.glob("run/checkpoints/.partial-*/manifest.json")
    assert manifest.read_bytes() == b""
    done = textgen("run", "pipeline.toml", *again, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert not list(tmp_path.glob("run/checkpoints/.*"))


def test_a_full_disk_leaves_no_part_of_a_checkpoint(
    tmp_path: Path, tiny_pipeline: Tables, write_pipeline: Any, python: Any
) -> None:
    write_pipeline(tiny_pipeline())
    done = python("-c", AT_THE_MANIFEST, "full", cwd=tmp_path)
    assert done.code == 1
    assert "No space left on device; earlier checkpoints are intact" in done.stderr
    assert list(tmp_path.glob("run/checkpoints/*")) == []


def test_what_cannot_be_read_of_a_checkpoint_is_a_leftover(tmp_path: Path, tiny_pipeline: Tables) -> None:
    tables = tiny_pipeline(trainer={"type": "sgd", "epochs": 2, "batch_size": 4})
    checkpoints = interrupt(tables)
    (last,) = checkpoints.iterdir()
    manifest = json.loads((last / "manifest.json").read_bytes())
    steps = [json.dumps({**manifest, "step": step}) for step in ("5", None, 1.5, -1, True, [], 10**400)]
    files = [json.dumps({**manifest, "step": 5, "files": files}) for files in (None, {}, [], {"trainer.json": 5})]
    huge = '{"step": 1' + "0" * 5000 + "}"
    for number, text in enumerate([*steps, *files, huge, "", "{", "[]", "[" * 100_000, '{"step": 5}', "\0" * 400]):
        shutil.copytree(last, checkpoints / f".partial-{number}")
        (checkpoints / f".partial-{number}" / "manifest.json").write_text(text)
    for name in ("model.safetensors", "trainer.json"):  # one that lost a file, and one that lost its end
        shutil.copytree(last, checkpoints / f".partial-{name}")
        (checkpoints / f".partial-{name}" / "manifest.json").write_text(json.dumps({**manifest, "step": 5}))
    (checkpoints / ".partial-model.safetensors/model.safetensors").unlink()
    (checkpoints / ".partial-trainer.json/trainer.json").write_bytes(b"{")
    (checkpoints / ".partial-file").write_bytes(b"")
    run = textgen.run(tables)
    assert run.outcome == "resumed"
    assert [path.name for path in checkpoints.glob(".*")] == []
    assert len(list(checkpoints.iterdir())) <= 2
    whole = textgen.run(tables, output=tmp_path / "whole")
    assert (run.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


# Links.


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def foreign(folder: Path) -> Path:
    """A folder that is none of a run's business, with names in it that a run would remove."""
    for name in ("step-000001", ".partial-mine", "mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(b"the only copy")
    return folder


@pytest.mark.parametrize("overwrite", [False, True], ids=["again", "overwrite"])
@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((name, ".") for name in ("checkpoints", "checkpoints/step-000009", ".previous", "copy-index")),
        *((name, "mine/model.safetensors") for name in ("metrics.jsonl", ".lock", ".lock-owner.json")),
    ],
)
def test_a_link_out_of_the_run_directory_is_refused_before_anything_is_touched(
    tmp_path: Path, tiny_pipeline: Tables, name: str, target: str, overwrite: bool
) -> None:
    tables = tiny_pipeline()
    run = interrupt(tables).parent
    outside = foreign(tmp_path / "outside")
    if (run / name).is_dir():
        shutil.move(run / name, tmp_path / "moved")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside / target)
    before, inside = tree(outside), tree(run)
    with pytest.raises(textgen.RunError, match=f"run/{name} leads out of the run directory"):
        textgen.run(tables, overwrite=overwrite)
    assert (tree(outside), tree(run)) == (before, inside)
    (run / name).unlink()
    assert textgen.run(tables, overwrite=overwrite).outcome in ("trained", "resumed")


def test_links_that_lead_nowhere_else_are_in_nobodys_way(tmp_path: Path, tiny_pipeline: Tables) -> None:
    """A run directory that is reached through a link, and links where a killed process may have left a folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    tables = tiny_pipeline()
    checkpoints = interrupt(tables)
    outside = foreign(tmp_path / "outside")
    shutil.copy(next(checkpoints.glob("step-*/manifest.json")), outside / "mine")
    before = tree(outside)
    for folder in (tmp_path / "run", checkpoints):
        (folder / ".partial-link").symlink_to(outside / "mine")
        (folder / ".partial-dangling").symlink_to(outside / "nothing")
    (checkpoints / "step-000099").symlink_to(next(checkpoints.glob("step-*")))
    assert textgen.run(tables).outcome == "resumed"
    assert tree(outside) == before
    assert not [path for path in tmp_path.rglob("elsewhere/**/*") if path.is_symlink()]
    assert textgen.run(tables).outcome == "skipped"
    assert textgen.run(tables, overwrite=True).outcome == "trained"


# A folder that was never a run.


@pytest.mark.parametrize("overwrite", [False, True], ids=["again", "overwrite"])
@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "samples.txt", "tokens.bin", "pipeline.toml", "checkpoints/step-000100/weights"),
        *("checkpoints/mine", "copy-index/mine", ".partial-mine/mine", ".probe-mine", ".letter.tmp", ".lock"),
        *(".previous/run.json", ".bashrc"),
    ],
)
def test_a_folder_that_was_never_a_run_is_left_alone(
    tmp_path: Path, tiny_pipeline: Tables, name: str, overwrite: bool
) -> None:
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).write_text('the = "only copy"')
    before = tree(tmp_path / "run")
    said = re.escape(f"run is not a run directory and is not empty ({Path(name).parts[0]}); choose another")
    with pytest.raises(textgen.RunError, match=said):
        textgen.run(tiny_pipeline(), overwrite=overwrite)
    assert tree(tmp_path / "run") == before


def test_a_pipeline_copied_out_of_a_run_runs_where_it_lies(tmp_path: Path, tiny_pipeline: Tables) -> None:
    first = textgen.run(tiny_pipeline())
    (tmp_path / "again").mkdir()
    (tmp_path / "again/.gitkeep").touch()
    shutil.copy(first.path / "pipeline.toml", tmp_path / "again")
    assert textgen.run(tmp_path / "again/pipeline.toml").outcome == "trained"
    assert (tmp_path / "again/model.safetensors").read_bytes() == (first.path / "model.safetensors").read_bytes()


KILLED = """
import itertools, json, os, shutil, sys
from pathlib import Path
import torch._dynamo  # once, and not in every child
import textgen
from textgen.events import RunStarted

tables, begun = json.loads(sys.argv[1]), json.loads(sys.argv[2])
work, started = Path(tables["output"]), Path("started")

class Look:
    def observe(self, event):
        if isinstance(event, RunStarted):
            assert not list(work.glob("checkpoints/step-*")), "another run's checkpoints"

class Build:
    def observe(self, event):
        os._exit(3)

def apart(act):  # torch hangs in the child of a process that has trained
    child = os.fork()
    if not child:
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def dies(last):
    changes = itertools.count(1)
    def hook(event, arguments):
        removal = event in ("os.remove", "os.rmdir")
        change = removal or event == "os.mkdir" or event == "os.rename" or (event == "open" and arguments[2] & 3)
        if change and (removal or str(work) in str(arguments[0])) and next(changes) == last:
            os._exit(9)
    sys.addaudithook(hook)
    textgen.run(tables, overwrite=True, observers=[Build()])

def fails():
    try:
        textgen.run({**tables, "corpus": {"type": "file", "path": "missing"}})
    except textgen.CorpusError:
        pass

for last in itertools.count(1):
    shutil.rmtree(work, ignore_errors=True)
    if begun:
        shutil.copytree("begun", work)
    code = apart(lambda: dies(last))
    if code == 3:
        break
    assert code == 9, code
    if begun and (work / "run.json").exists() and "unfinished" in (work / "run.json").read_text():
        continue
    def go_on():
        fails()
        textgen.run(tables, observers=[Look()])
    assert apart(go_on) == 0, last
print(last)
"""


@pytest.mark.parametrize("begun", [False, True], ids=["new", "unfinished"])
def test_killed_at_any_change_before_there_is_a_run(
    tmp_path: Path, tiny_pipeline: Tables, python: Any, begun: bool
) -> None:
    """A new run, or one that overwrites an unfinished one; the next run fails, and the one after that has its way."""
    if begun:
        interrupt(tiny_pipeline(model={"hidden_size": 5}))
        shutil.move(tmp_path / "run", tmp_path / "begun")
    tables = tiny_pipeline(trainer={"type": "sgd", "epochs": 1})
    done = python("-c", KILLED, json.dumps(tables), json.dumps(begun), cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert done.code == 0, done.stderr
    assert int(done.stdout) > 20


# A stderr that is lost.


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
