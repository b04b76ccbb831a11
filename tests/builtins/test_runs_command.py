"""The command runs: what is in a folder of runs, and what can be removed from it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import textgen
from textgen.cli.context import CommandContext
from textgen.runs.directory import RunDirectory
from textgen_builtins.commands.compare import compare
from textgen_builtins.commands.runs import runs


def invoke(*arguments: str, answer: str = "") -> Any:
    return CliRunner().invoke(runs, arguments, input=answer, prog_name="textgen runs")


@pytest.fixture
def interrupted(tiny_pipeline: Callable[..., Any], tmp_path: Path) -> Path:
    asked = iter([False])
    tables = tiny_pipeline(
        observers=True,
        trainer={"length": "3 epochs", "evaluate_every": 1},
        checkpoint={"seconds": 0.0},
    )
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables, output=tmp_path / "runs/stopped", cancelled=lambda: next(asked, True))
    return tmp_path / "runs/stopped"


class PowerCut(Exception):
    pass


class FailingObserver:
    def observe(self, event: Any) -> None:
        if getattr(event, "step", 0) == 2:
            raise PowerCut("\x1b[31mno power")


@pytest.fixture
def folder(
    interrupted: Path, finished_run: Path, tiny_pipeline: Callable[..., Any], tmp_path: Path
) -> Path:
    runs = tmp_path / "runs"
    shutil.copytree(finished_run, runs / "sweep/a=1")
    with pytest.raises(PowerCut):
        textgen.run(
            tiny_pipeline(checkpoint={"seconds": 0.0}),
            output=runs / "failed",
            observers=[FailingObserver()],
        )
    killed = shutil.copytree(interrupted, runs / "killed")
    record = {**RunDirectory(killed).read_run(), "status": "training", "step": 0}
    del record["cause"]
    RunDirectory(killed).write_run(record)
    with (killed / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": 1, "validation_loss": {10**400}}}\n')
    for name, content in {
        "empty": b"",
        "nested": b"[" * 100_000,
        "null": b'{"format_version": 1, "status": null, "step": "x", "best_loss": []}',
        "bytes": b"\xff\xfe",
    }.items():
        (runs / name).mkdir()
        (runs / name / "run.json").write_bytes(content)
        (runs / name / "metrics.jsonl").write_bytes(
            b'{"step": "x"}\n\xff\n[]\n{"step": 3, "validation_loss": NaN}\n'
        )
        (runs / name / "model.safetensors").write_bytes(b"\xff" * 20)
    (runs / "link").symlink_to(runs / "gone")
    (runs / "folder.json/run.json").mkdir(parents=True)
    (runs / "notes").mkdir()
    (runs / ".hidden").mkdir()
    (runs / "file").touch()
    os.mkfifo(runs / "pipe")
    return runs


def test_every_run_of_a_folder_with_its_status(folder: Path) -> None:
    done = invoke(str(folder), "--json")
    assert done.exit_code == 0, done.output
    rows = {row["name"]: row for row in json.loads(done.output)}
    statuses = {name: row["status"] for name, row in rows.items()}
    assert {name for name, status in statuses.items() if status == "damaged"} == {
        *("empty", "nested", "null", "bytes", "folder.json")
    }
    assert {name: status for name, status in statuses.items() if status != "damaged"} == {
        "a=1": "finished",
        **dict.fromkeys(("stopped", "failed", "killed"), "stopped"),
    }
    stopped = rows["stopped"]
    assert (stopped["cause"], stopped["step"], stopped["steps"]) == ("interrupted", 2, 9)
    assert stopped["bytes"] > stopped["checkpoint_bytes"] > 0
    assert rows["failed"]["cause"] == "PowerCut: \x1b[31mno power"
    assert (rows["killed"]["cause"], rows["killed"]["step"]) == ("killed", 2)
    with RunDirectory(folder / "killed").locked():
        assert textgen.summarize(folder / "killed").status == "running"
    shown = invoke(str(folder), "--sort", "name").output
    assert "\x1b" not in shown
    assert re.search(r"^stopped .* 2 of 9 .*interrupted$", shown, re.MULTILINE)


def test_a_run_that_was_finished_before_its_last_step_is_not_listed_as_one_that_goes_on(
    interrupted: Path, finished_run: Path
) -> None:
    shutil.copytree(finished_run, interrupted.with_name("whole"))
    assert textgen.Engine().finish(interrupted)
    lines = {line.split()[0]: line for line in invoke(str(interrupted.parent)).output.splitlines()}
    assert re.match(
        r"stopped  finished early +2 of 9 .* textgen run --finish: by request$", lines["stopped"]
    )
    assert re.match(r"whole    finished  ", lines["whole"])
    assert (
        "finished early"
        in CliRunner().invoke(compare, [str(interrupted)], obj=CommandContext()).output
    )


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(textgen.UsageError, match="does not exist"):
        CliRunner().invoke(runs, [str(tmp_path / "runs")], catch_exceptions=False)
    assert "no runs in" in invoke(str(tmp_path)).output
    with pytest.raises(textgen.RunError, match="is not a run directory"):
        textgen.summarize(tmp_path)


def test_prune_takes_the_checkpoints_of_finished_runs_alone(folder: Path) -> None:
    def checkpoints(name: str) -> list[Path]:
        return sorted((folder / name / "checkpoints").glob("*"))

    before = {name: checkpoints(name) for name in ("stopped", "failed", "killed", "sweep/a=1")}
    assert all(before.values())
    with pytest.raises(textgen.UsageError, match="give --yes"):
        CliRunner().invoke(runs, [str(folder), "--prune"], catch_exceptions=False)
    asked = invoke(str(folder), "--prune", answer="n\n")
    assert "cannot be\ntrained on to a greater length" in asked.output
    assert "nothing was removed" in asked.output
    with RunDirectory(folder / "sweep/a=1").locked():
        used = invoke(str(folder), "--prune", "--yes")
    assert (used.exit_code, used.output.count("textgen: error: ")) == (1, 1)
    assert {name: checkpoints(name) for name in before} == before
    size = textgen.summarize(folder / "sweep/a=1").bytes
    done = invoke(str(folder), "--prune", "--yes", "--json")
    assert done.exit_code == 0, done.output
    freed = json.loads(done.output)
    assert list(freed["runs"]) == [str(folder / "sweep/a=1")]
    assert freed["bytes"] == size - textgen.summarize(folder / "sweep/a=1").bytes > 0
    assert {name: checkpoints(name) for name in before} == {**before, "sweep/a=1": []}
    assert len(textgen.load(folder / "sweep/a=1").generate(max_new_tokens=5).text) == 5
    with pytest.raises(textgen.RunError, match="is not finished"):
        textgen.prune(folder / "stopped")
    with RunDirectory(folder / "sweep/a=1").locked(), pytest.raises(textgen.RunLockedError):
        textgen.prune(folder / "sweep/a=1")


def test_a_run_behind_a_link_out_of_the_folder_is_listed_and_not_pruned(
    finished_run: Path, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(finished_run, tmp_path / "elsewhere/mine")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/linked").symlink_to(elsewhere)
    (tmp_path / "runs/dangling").symlink_to(tmp_path / "nowhere")
    partly = shutil.copytree(finished_run, tmp_path / "runs/partly")
    (partly / "checkpoints").rename(tmp_path / "checkpoints")
    (partly / "checkpoints").symlink_to(tmp_path / "checkpoints")
    rows = json.loads(invoke(str(tmp_path / "runs"), "--json").output)
    assert {row["name"] for row in rows} == {"linked", "partly"}
    done = invoke(str(tmp_path / "runs"), "--prune", "-y", "--json")
    assert json.loads(done.output)["runs"] == {}
    assert list(elsewhere.glob("checkpoints/step-*"))
    assert list((tmp_path / "checkpoints").glob("step-*"))
    with pytest.raises(textgen.RunError, match="leads out of the run directory"):
        textgen.prune(partly)
