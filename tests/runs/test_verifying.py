"""What `textgen doctor RUN` finds damaged, and says still works."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_textgen
from small_run import copied, flip, tables, tree

import textgen
from textgen_builtins.observers.run_files import read_metrics


def states(report: textgen.RunReport) -> dict[str, str]:
    """What is not whole."""
    return {file.name: file.state for file in report.files if file.state != "whole"}


def change(path: Path, how: Callable[[bytes], bytes] = flip) -> None:
    path.write_bytes(how(path.read_bytes()))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was stopped with checkpoints of two steps."""
    folder = tmp_path_factory.mktemp("half")
    (folder / "text.txt").write_text(
        "Once a raven flew over seven hills, and none came back.\n" * 50
    )
    steps = iter(range(100))
    with pytest.raises(textgen.Interrupted):
        textgen.run(
            tables(folder, "sgd", "shuffled"),
            output=folder / "run",
            cancelled=lambda: next(steps) == 6,
        )
    assert len(list((folder / "run/checkpoints").iterdir())) == 2
    return folder


@pytest.fixture
def unfinished(half: Path, tmp_path: Path) -> Path:
    shutil.copytree(half / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_whole_run_is_whole(trained: tuple[Path, Any], unfinished: Path) -> None:
    report = textgen.verify(trained[0] / "runs/p")
    assert (report.whole, report.loads, report.status) == (True, True, "finished")
    names = [file.name for file in report.files]
    assert {"run.json", "pipeline.toml", "tokenizer.json", "model.safetensors"} < set(names)
    assert report.checkpoints
    report = textgen.verify(unfinished)
    assert (report.whole, report.loads, report.status) == (True, True, "unfinished")
    assert report.checkpoints[-1] == int(max(unfinished.glob("checkpoints/*")).name[5:])


@pytest.mark.parametrize(
    ("name", "loads"),
    [
        ("run.json", False),
        ("pipeline.toml", False),
        ("tokenizer.json", False),
        ("model.safetensors", False),
        ("checkpoints", True),
    ],
)
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_each_file_that_is_damaged_is_named(
    trained: tuple[Path, Any], tmp_path: Path, name: str, loads: bool, how: str
) -> None:
    run = copied(trained, tmp_path)
    (step,) = run.glob("checkpoints/*")
    path = step / "trainer.json" if name == "checkpoints" else run / name
    if (name, how) == ("run.json", "missing"):
        return  # then the folder is not a run
    if how == "damaged":
        change(
            path, lambda data: data[: len(data) // 2 - 3].rstrip(b"}\n")
        )  # never at the end of a line
    else:
        path.unlink()
    report = textgen.verify(run)
    named = str(step.relative_to(run)) if name == "checkpoints" else name
    assert states(report) == {named: "damaged" if name == "checkpoints" else how}
    (bad,) = [file for file in report.files if file.state != "whole"]
    assert str(path) in bad.cause
    assert (report.whole, report.loads) == (False, loads)
    if not loads:
        with pytest.raises((textgen.CorruptFileError, textgen.PipelineError), match=name):
            textgen.load(run)


def test_a_run_whose_best_checkpoint_is_damaged_goes_on(
    half: Path, unfinished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = sorted(unfinished.glob("checkpoints/*"))
    change(first / "model.safetensors")
    run = textgen.run(tables(half, "sgd", "shuffled"), output=unfinished)
    assert run.outcome == "resumed"
    assert f"checkpoint of step {int(first.name[5:])}, the best so far, is damaged" in caplog.text
    assert textgen.verify(unfinished).whole


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_checkpoint_that_cannot_be_read_is_not_a_damaged_one(
    half: Path, unfinished: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """The best or the newest checkpoint: nothing is removed, replaced or trained without it."""
    before = tree(unfinished)
    for folder in sorted(unfinished.glob("checkpoints/*")):
        path, opening = folder / "model.safetensors", os.open

        def refuse(
            name: Any, *rest: Any, path: Path = path, opening: Any = opening, **more: Any
        ) -> int:
            if os.fspath(name) == os.path.realpath(path):
                raise OSError(error, os.strerror(error), os.fspath(name))
            return int(opening(name, *rest, **more))

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            with pytest.raises(textgen.RunError, match=re.escape(f"{path}: it cannot be read")):
                textgen.run(tables(half, "sgd", "shuffled"), output=unfinished)
            report = textgen.verify(unfinished)
        assert states(report) == {f"checkpoints/{folder.name}": "unreadable"}
        assert tree(unfinished) == before
    assert textgen.run(tables(half, "sgd", "shuffled"), output=unfinished).outcome == "resumed"


def test_damaged_metrics_are_named(
    trained: tuple[Path, Any],
    unfinished: Path,
    tmp_path: Path,
    half: Path,
    recwarn: pytest.WarningsRecorder,
) -> None:
    path = unfinished / "metrics.jsonl"
    first, *rest = path.read_bytes().splitlines(keepends=True)
    for bad in (b"\0\n", b"[1]\n", first.replace(b'"step": 2', b'"step": "2"')):
        path.write_bytes(first + bad + b"".join(rest))
        with pytest.warns(UserWarning, match=r"metrics\.jsonl: line 2 is damaged, and left out"):
            assert read_metrics(path) == [json.loads(first)]


def test_the_command_says_what_works(trained: tuple[Path, Any], tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    done = run_textgen("doctor", "runs/p", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("no file is damaged; the run can be used\n")
    change(run / "tokenizer.json")
    done = run_textgen("doctor", "runs/p", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    assert (done.returncode, found["whole"], found["loads"]) == (1, False, False)
    assert [file["name"] for file in found["files"] if file["state"] == "damaged"] == [
        "tokenizer.json"
    ]
    with pytest.raises(textgen.RunError, match=r"is not a run directory: it has no run\.json"):
        textgen.verify(tmp_path)


def test_a_flipped_bit_of_the_record_is_no_misspelt_key(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    run = copied(trained, tmp_path)
    change(run / "run.json", lambda data: data.replace(b'"seed"', b'"reed"'))
    with pytest.raises(textgen.CorruptFileError) as caught:
        textgen.load(run)
    assert re.search(
        r"run\.json: it is damaged: .*restore it from a copy, or .*overwrite", str(caught.value)
    )
    assert "reed" not in str(caught.value)


def test_what_is_damaged_is_placed_and_its_remedy_named(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    run = copied(trained, tmp_path)
    change(run / "pipeline.toml", lambda data: b"seed = 1\nname = x\n" + data)
    done = run_textgen("doctor", "runs/p", folder=tmp_path)
    assert re.search(r"^pipeline\.toml +damaged: 2:8: not valid TOML", done.stdout, re.MULTILINE)
    run = copied(trained, tmp_path / "other")
    change(run / "tokenizer.json")
    with pytest.raises(
        textgen.CorruptFileError,
        match=r"tokenizer\.json: .*train anew with overwrite",
    ):
        textgen.load(run)


@pytest.mark.parametrize("given", ["p", "p.toml", "runs/q"])
def test_the_run_that_was_meant_is_named(
    trained: tuple[Path, Any], tmp_path: Path, given: str
) -> None:
    copied(trained, tmp_path)
    (tmp_path / "p.toml").write_text("")
    done = run_textgen("doctor", given, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search("did you mean .*runs/p", done.stderr)


def test_the_command_names_each_file_once(trained: tuple[Path, Any], tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    (step,) = run.glob("checkpoints/*")
    names = ["run.json", "tokenizer.json", "pipeline.toml", "model.safetensors"]
    for path in (
        *(run / name for name in names[1:]),
        step / "trainer.json",
    ):
        change(path, lambda data: data[:-20] + b"=")
    done = run_textgen("doctor", "runs/p", folder=tmp_path)
    folders = {str(step.relative_to(run)): "trainer.json"}
    *lines, _ = done.stdout.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown.keys() == {*names, *folders}
    for name, rest in shown.items():
        assert re.match("whole$" if name == "run.json" else "(damaged|missing): [^/:]", rest), rest
        assert Path(name).name not in rest
        assert name not in folders or rest.count(folders[name]) == 1, rest
