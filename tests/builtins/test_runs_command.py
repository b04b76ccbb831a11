"""The command runs: what is in a folder of runs, and what can be removed from it."""

import json
import os
import re
import shutil

import pytest
from click.testing import CliRunner
from raising import raises

import textgen
from textgen.runs.directory import RunDirectory
from textgen_builtins.commands.compare import compare
from textgen_builtins.commands.runs import runs

OFTEN = {"seconds": 0.0}


def invoke(*arguments, **options):
    return CliRunner().invoke(runs, [*map(str, arguments)], **options)


@pytest.fixture
def interrupted(tiny_pipeline, tmp_path):
    asked, path = iter([False]), tmp_path / "runs/stopped"
    tables = tiny_pipeline(
        observers=True, trainer={"length": "3 epochs", "evaluate_every": 1}, checkpoint=OFTEN
    )
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables, output=path, cancelled=lambda: next(asked, True))
    return path


def fail(event):
    if getattr(event, "step", 0) == 2:
        raise RuntimeError("\x1b[31mno power")


@pytest.fixture
def folder(interrupted, finished_run, tiny_pipeline, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(finished_run, runs / "grid/a=1")
    with pytest.raises(RuntimeError):
        textgen.run(tiny_pipeline(checkpoint=OFTEN), output=runs / "failed", observers=[fail])
    killed = shutil.copytree(interrupted, runs / "killed")
    record = RunDirectory(killed).read_run()
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
    if hasattr(os, "mkfifo"):
        os.mkfifo(runs / "pipe")
    return runs


def test_every_run_of_a_folder_with_its_status(folder):
    rows = {row["name"]: row for row in json.loads(invoke(folder, "--json").output)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "grid/a=1": "finished",
        **dict.fromkeys(("stopped", "failed", "killed"), "unfinished"),
        **dict.fromkeys(("empty", "nested", "null", "bytes", "folder.json"), "damaged"),
    }
    stopped = rows["stopped"]
    assert (stopped["cause"], stopped["step"], stopped["steps"]) == ("interrupted", 2, 9)
    assert stopped["bytes"] > 0
    assert rows["failed"]["cause"] == "RuntimeError: \x1b[31mno power"
    assert (rows["killed"]["cause"], rows["killed"]["step"]) == ("killed", 2)
    with RunDirectory(folder / "killed").locked():
        assert textgen.summarize(folder / "killed").status == "running"
    shown = invoke(folder).output
    assert "\x1b" not in shown
    assert re.search(r"^stopped .* 2 of 9 .*interrupted$", shown, re.MULTILINE)


def test_a_run_that_was_finished_before_its_last_step_is_not_listed_as_one_that_goes_on(
    interrupted, finished_run
):
    shutil.copytree(finished_run, interrupted.with_name("whole"))
    assert textgen.Engine().finish(interrupted)
    shown = invoke(interrupted.parent).output
    early = r"(?m)^stopped  finished early +2 of 9 .* textgen run --finish: by request$"
    assert re.search(early, shown)
    assert re.search("(?m)^whole    finished  ", shown)
    compared = CliRunner().invoke(compare, [str(interrupted)])
    assert "finished early" in compared.output


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(textgen.UsageError):
        invoke(tmp_path / "runs", catch_exceptions=False)
    assert "no runs in" in invoke(tmp_path).output
    with raises(textgen.RunError, path=tmp_path):
        textgen.summarize(tmp_path)


def test_a_run_behind_a_link_out_of_the_folder_is_listed(finished_run, tmp_path):
    elsewhere, folder = shutil.copytree(finished_run, tmp_path / "mine"), tmp_path / "runs"
    folder.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    (row,) = json.loads(invoke(folder, "--json").output)
    assert row["name"] == "linked"
