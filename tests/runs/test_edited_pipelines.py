"""A run's own pipeline.toml, changed after the run was made: said and followed, or refused."""

import json
import shutil
import tomllib

import pytest
import tomli_w
from commands import run_textgen
from raising import raises

import textgen


@pytest.fixture
def edited(finished_run, tmp_path):
    """A copy of the run with dotted keys of its pipeline.toml changed."""
    run = shutil.copytree(finished_run, tmp_path / "run")

    def edit(changes):
        tables = tomllib.loads((run / "pipeline.toml").read_text(encoding="utf-8"))
        for key, value in changes.items():
            table, _, last = key.rpartition(".")
            (tables[table] if table else tables)[last] = value
        (run / "pipeline.toml").write_bytes(tomli_w.dumps(tables).encode())
        return run

    return edit


def test_what_may_change_is_said_in_a_line_and_followed(edited, tmp_path):
    run = edited({"generate.max_new_tokens": 5, "sampler": [{"type": "greedy"}]})
    done = run_textgen("generate", run, "-p", "the ", "--no-echo", folder=tmp_path)
    assert (done.returncode, len(done.stdout)) == (0, 6)
    (line,) = done.stderr.splitlines()
    assert f"{run / 'pipeline.toml'} was changed since the run was made" in line
    done = run_textgen("doctor", run, folder=tmp_path)
    assert (done.returncode, done.stdout.count("was changed since the run was made")) == (0, 1)
    assert textgen.run(run / "pipeline.toml").outcome == "skipped"
    # From here on it is the run's own.
    assert textgen.load(run).defaults["max_new_tokens"] == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.hidden_size", 9),
        ("model.cell", "gru"),
        ("tokenizer.lower_case", True),
        ("tokenizer.min_frequency", 2),
    ],
)
def test_what_no_longer_describes_the_weights_is_an_error(edited, key, value):
    run = edited({key: value})
    with raises(textgen.CorruptFileError, path=run / "pipeline.toml") as caught:
        textgen.load(run)
    assert f"{key}: " in str(caught.value)


def test_a_training_that_is_to_go_on_may_be_edited_in(edited):
    run = edited({"trainer.length": "3 epochs"})
    with pytest.warns(UserWarning):
        textgen.load(run)
    assert textgen.run(run / "pipeline.toml").outcome == "resumed"
    textgen.load(run)


def test_what_no_pipeline_has_is_an_error(edited):
    run = edited({"samplr": [{"type": "greedy"}], "generate.max_new_tokens": "5"})
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.load(run)
    assert {fault.path for fault in caught.value.faults} == {"samplr", "generate.max_new_tokens"}
    assert "did you mean 'sampler'" in str(caught.value)
    assert caught.value.source == str(run / "pipeline.toml")


def test_no_byte_of_the_record_or_the_pipeline_changes_unseen(edited):
    """Every 211th byte with a bit flipped: an error, a warning, or the same, as in a comment."""
    run = edited({})
    for name, parse in (("run.json", json.loads), ("pipeline.toml", tomllib.loads)):
        path = run / name
        good, seen = path.read_text(encoding="utf-8"), 0
        for at in range(0, len(good), 211):
            path.write_text(good[:at] + chr(ord(good[at]) ^ 1) + good[at + 1 :], encoding="utf-8")
            try:
                textgen.load(run).close()  # a warning is an error here
                assert parse(path.read_text(encoding="utf-8")) == parse(good), at
            except (textgen.TextgenError, UserWarning):
                seen += 1
        path.write_text(good, encoding="utf-8")
        assert seen


def test_a_pipeline_that_show_printed_is_a_run_of_its_own_once_edited(
    tmp_path, tiny_pipeline, write_pipeline, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    tables = tiny_pipeline()
    del tables["output"]
    textgen.run(write_pipeline(tables, "first.toml"))
    shown = run_textgen("show", "first.toml", folder=tmp_path).stdout
    edited = shown.replace("hidden_size = 8", "hidden_size = 9")
    for name, text, outcome in (("second", edited, "trained"), ("first", shown, "skipped")):
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
        run = textgen.run(f"{name}.toml")
        assert (run.path, run.outcome) == (tmp_path / "runs" / name, outcome)
    pipeline = write_pipeline({**tables, "output": "out/mine"})
    shown = run_textgen("show", pipeline, folder=tmp_path).stdout
    assert 'output = "out/mine"\n' in shown
