"""A run's own pipeline.toml, changed after the run was made: said and followed, or refused."""

from __future__ import annotations

import json
import shutil
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from commands import run_textgen

import textgen


@pytest.fixture
def edited(finished_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run with dotted keys of its pipeline.toml changed; without those that are
    None.
    """
    shutil.copytree(finished_run, tmp_path / "run")
    path = tmp_path / "run/pipeline.toml"

    def edit(changes: dict[str, Any]) -> Path:
        tables = tomllib.loads((finished_run / "pipeline.toml").read_text(encoding="utf-8"))
        for key, value in changes.items():
            *parents, last = key.split(".")
            place: Any = tables
            for parent in parents:
                place = place.setdefault(parent, {})
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        path.write_bytes(tomli_w.dumps(tables).encode())
        return tmp_path / "run"

    return edit


def test_what_may_change_is_said_in_a_line_and_followed(
    edited: Callable[..., Path], tmp_path: Path
) -> None:
    run = edited({"generate.max_new_tokens": 5, "sampler": [{"type": "greedy"}]})
    done = run_textgen("generate", run, "-p", "the ", "--no-echo", folder=tmp_path)
    assert (done.returncode, len(done.stdout)) == (0, 6)
    (line,) = done.stderr.splitlines()
    assert f"{run / 'pipeline.toml'} was changed since the run was made" in line
    report = textgen.verify(run)
    (changed,) = [file for file in report.files if file.state != "whole"]
    assert (changed.name, changed.state, report.whole) == ("pipeline.toml", "changed", True)
    assert (
        textgen.run(run / "pipeline.toml").outcome == "skipped"
    )  # from here on it is the run's own
    assert textgen.load(run).defaults["max_new_tokens"] == 5
    assert {file.state for file in textgen.verify(run).files} == {"whole"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.hidden_size", 9),
        ("model.cell", "relu"),
        ("tokenizer.lower_case", True),
        ("tokenizer.min_frequency", 2),
    ],
)
def test_what_no_longer_describes_the_weights_is_an_error(
    edited: Callable[..., Path], finished_run: Path, key: str, value: Any
) -> None:
    run = edited({key: value})
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(
            textgen.CorruptFileError,
            match=rf"no longer describes the weights: {key}: .* now; .*restore it",
        ),
    ):
        textgen.load(run)


def test_a_training_that_is_to_go_on_may_be_edited_in(edited: Callable[..., Path]) -> None:
    run = edited({"trainer.length": "3 epochs"})
    with pytest.warns(UserWarning, match="was changed since the run was made"):
        textgen.load(run)
    assert textgen.run(run / "pipeline.toml").outcome == "resumed"
    textgen.load(run)


def test_what_no_pipeline_has_is_an_error(edited: Callable[..., Path]) -> None:
    run = edited({"samplr": [{"type": "greedy"}], "generate.max_new_tokens": "5"})
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.load(run)
    assert {fault.path for fault in caught.value.faults} == {"samplr", "generate.max_new_tokens"}
    assert "did you mean 'sampler'" in str(caught.value)
    assert caught.value.source == str(run / "pipeline.toml")


@pytest.mark.parametrize("sampler", [1.5, {"type": "greedy"}])
def test_a_chain_that_is_no_list_is_an_error(edited: Callable[..., Path], sampler: Any) -> None:
    run = edited({"sampler": sampler})
    said = r"pipeline\.toml: sampler: expected an array of tables, \[\[sampler"
    with pytest.raises(textgen.PipelineError, match=said):
        textgen.load(run)


def test_no_byte_of_the_record_or_the_pipeline_changes_unseen(edited: Callable[..., Path]) -> None:
    """Every 67th byte with a bit flipped: the file is not whole, or says the same, as in a
    comment.
    """
    run = edited({})
    for name, parse in (("run.json", json.loads), ("pipeline.toml", tomllib.loads)):
        path = run / name
        good, seen = path.read_text(encoding="utf-8"), 0
        for at in range(0, len(good), 67):
            path.write_text(good[:at] + chr(ord(good[at]) ^ 1) + good[at + 1 :], encoding="utf-8")
            if name in [file.name for file in textgen.verify(run).files if file.state != "whole"]:
                seen += 1
            else:
                assert parse(path.read_text(encoding="utf-8")) == parse(good), at
        path.write_text(good, encoding="utf-8")
        assert seen > 10


def test_a_pipeline_that_show_printed_is_a_run_of_its_own_once_edited(
    tmp_path: Path, tiny_pipeline: Any, write_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tables = tiny_pipeline()
    del tables["output"]
    assert textgen.run(write_pipeline(tables, "first.toml")).path == tmp_path / "runs/first"
    shown = run_textgen("show", "first.toml", folder=tmp_path).stdout
    (tmp_path / "second.toml").write_text(
        shown.replace("hidden_size = 8", "hidden_size = 9"), encoding="utf-8"
    )
    assert textgen.run("second.toml").path == tmp_path / "runs/second"
    (tmp_path / "first.toml").write_text(shown, encoding="utf-8")
    assert textgen.run("first.toml").outcome == "skipped"
    shown = run_textgen(
        "show", write_pipeline({**tables, "output": "out/mine"}), folder=tmp_path
    ).stdout
    assert 'output = "out/mine"\n' in shown
