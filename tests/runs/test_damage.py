"""Damage to the files of a run: what is damaged is named by whoever reads it, and nothing else is
said to be.
"""

import errno
import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from commands import run_textgen
from raising import raises
from sealing import seal
from small_run import flip, tree

import textgen

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
DAMAGE = {
    "flipped": flip,
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "git lfs pointer": lambda data: LFS,
    "nested deeply": lambda data: b"[" * 100_000,
    "a huge integer": lambda data: b'{"step": 1' + b"0" * 5000 + b"}",
    "no object": lambda data: b"[]",
    "not UTF-8": lambda data: b"\xff\xfe{",
}
RUN_FILES = ("run.json", "pipeline.toml", "tokenizer.json", "model.safetensors")
PARTS = ("manifest.json", "trainer.json", "trainer.safetensors", "model.safetensors")


def cause(run, name):
    """What `verify` says of the only file that is not whole."""
    ((damaged, said),) = ((name, said) for name, said in textgen.verify(run).items() if said)
    assert damaged == name
    return said


@pytest.mark.fault(3)
@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", RUN_FILES)
def test_a_damaged_file_is_named_by_all_that_read_it(finished, name, how):
    path = finished / name
    good = path.read_bytes()
    if (name, how) == ("pipeline.toml", "flipped"):
        how = "truncated"  # a flipped bit may be an edit
    path.write_bytes(DAMAGE[how](good))
    assert str(path) in cause(finished, name)
    with pytest.raises((textgen.RunError, textgen.PipelineError)) as caught:
        textgen.load(finished)
    assert name in str(caught.value)
    if name in ("tokenizer.json", "model.safetensors"):
        error = caught.value
        assert isinstance(error, textgen.CorruptFileError)
        assert error.path == path
        for data in (good, path.read_bytes()):
            assert hashlib.sha256(data).hexdigest()[:12] in str(error)
        assert ("git lfs pull" in str(error)) == (how == "git lfs pointer")
        assert "restore it from a copy" in str(error)


@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(unfinished, newest, caplog, name):
    path = newest / name
    good = path.read_bytes()
    for how in DAMAGE.keys() - ({"flipped"} if name == "manifest.json" else set()):
        path.write_bytes(DAMAGE[how](good))
        assert str(path) in cause(unfinished, f"checkpoints/{newest.name}")
    before = int(min(unfinished.glob("checkpoints/*")).name[5:])
    with pytest.warns(UserWarning, match=f"step {before}$"):
        textgen.load(unfinished).close()
    assert f"checkpoint of step {int(newest.name[5:])} is damaged" in caplog.text


@pytest.mark.parametrize("name", RUN_FILES[1:])
def test_a_file_that_is_missing_is_named(finished, name):
    (finished / name).unlink()
    assert "No such file" in cause(finished, name)
    with raises(textgen.CorruptFileError, path=finished / name):
        textgen.load(finished)


@pytest.mark.fault(4)
def test_all_checkpoints_damaged_is_an_error(unfinished):
    for path in unfinished.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(flip(path.read_bytes()))
    before = tree(unfinished)
    with pytest.raises(textgen.CorruptFileError) as caught:
        textgen.run(unfinished / "pipeline.toml")
    assert str(caught.value).count("from a copy") == 1
    assert "start again with `overwrite`" in caught.value.advice
    assert before.items() <= tree(unfinished).items()
    assert textgen.run(unfinished / "pipeline.toml", overwrite=True).outcome == "trained"


def test_a_run_whose_best_checkpoint_is_damaged_resumes(unfinished, newest, caplog):
    first, state = min(unfinished.glob("checkpoints/*")), newest / "trainer.json"
    made = json.loads(state.read_bytes())
    made["progress"] |= {"best_loss": 0.1, "best_objective": 0.1}  # which no later one is below
    state.write_text(json.dumps(made))
    seal(state, unfinished)
    (first / "model.safetensors").write_bytes(LFS)
    run = textgen.run(unfinished / "pipeline.toml")
    assert run.outcome == "resumed"
    assert f"checkpoint of step {int(first.name[5:])}, the best so far, is damaged" in caplog.text
    assert not any(textgen.verify(unfinished).values())


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_checkpoint_that_cannot_be_read_is_not_a_damaged_one(unfinished, monkeypatch, error):
    """The best or the newest checkpoint: nothing is removed, replaced or trained without it."""
    before, opening = tree(unfinished), os.open
    for folder in sorted(unfinished.glob("checkpoints/*")):
        path = folder / "model.safetensors"

        def refuse(name, *rest, path=path, **more):
            if os.fspath(name) == os.path.realpath(path):
                raise OSError(error, os.strerror(error), os.fspath(name))
            return opening(name, *rest, **more)

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            with raises(textgen.RunError, path=path):
                textgen.run(unfinished / "pipeline.toml")
            assert "it cannot be read" in cause(unfinished, f"checkpoints/{folder.name}")
        assert tree(unfinished) == before


@pytest.mark.parametrize("bad", [b"\0", b"[1]", b'{"step": "2"}', b'{"step": 2}'])
def test_a_damaged_row_of_metrics_takes_no_other_with_it(unfinished, bad):
    path = unfinished / "metrics.jsonl"
    _, *others = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([bad, *others]))
    textgen.run(unfinished / "pipeline.toml")
    damaged, *rows = path.read_bytes().splitlines()
    steps = [json.loads(row)["step"] for row in rows]
    assert (damaged, steps) == (bad, list(range(4, steps[-1] + 1, 2)))
    assert "validation" in (unfinished / "loss.svg").read_text(encoding="utf-8")


# The commands.


def test_the_command_names_each_file_once_and_where_it_is_damaged(finished, tmp_path):
    done = run_textgen("doctor", "runs/p", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("no file is damaged; the run can be used\n")
    (step,) = finished.glob("checkpoints/*")
    for path in (*(finished / name for name in RUN_FILES[2:]), step / "trainer.json"):
        path.write_bytes(path.read_bytes()[:-20] + b"=")
    (finished / "pipeline.toml").write_text("seed = 1\nname = x\n")
    found = json.loads(run_textgen("doctor", "runs/p", "--json", folder=tmp_path).stdout)
    assert not found["whole"]
    assert found["cause"]
    done = run_textgen("doctor", "runs/p", folder=tmp_path)
    assert done.returncode == 1
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[:-1])
    assert shown.keys() == {*RUN_FILES, f"checkpoints/{step.name}"}
    assert shown.pop("run.json") == "whole"
    assert shown["pipeline.toml"].startswith("not valid TOML")
    for name, rest in shown.items():
        assert re.match("[^/:]", rest), rest
        assert Path(name).name not in rest


@pytest.mark.parametrize("path", [None, b"run", "", "a\0b"])
def test_what_is_no_path_is_a_usage_error(path):
    for call in (textgen.load, textgen.verify, textgen.GenerationState.load):
        with pytest.raises(textgen.UsageError) as caught:
            call(path)
        assert caught.value.argument == "path"
