"""Faults of the disk and of other processes, and what stands in a run's way: nothing is lost, and no run is stuck."""

from __future__ import annotations

import json
import shutil
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
    (checkpoints / "step-000001").symlink_to(next(checkpoints.glob("step-*")))
    assert textgen.run(tables).outcome == "resumed"
    assert tree(outside) == before
    assert not [path for path in tmp_path.rglob("elsewhere/**/*") if path.is_symlink()]
    assert textgen.run(tables).outcome == "skipped"
    assert textgen.run(tables, overwrite=True).outcome == "trained"
