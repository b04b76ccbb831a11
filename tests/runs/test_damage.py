"""Damage to the files of a run: what is damaged is named by whoever reads it, and nothing else is
said to be.
"""

import copy
import errno
import functools
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run_textgen
from safetensors.numpy import load, save
from small_run import flip, interrupt, prepare, record_of, tables, tree

import textgen
from campaigns.mutations import seal
from textgen.files.reading import dump_tensors
from textgen.plugin.structure import flat
from textgen.runs.directory import RunDirectory
from textgen.runs.formats import signed

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


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run that was stopped with checkpoints of two steps."""
    folder = prepare(tmp_path_factory.mktemp("half"))
    interrupt(5, tables(folder, order="streams"), output=folder / "run")
    assert len(list((folder / "run/checkpoints").iterdir())) == 2
    return folder / "run"


@pytest.fixture
def unfinished(half, tmp_path):
    """A copy of it, to spoil."""
    return shutil.copytree(half, tmp_path / "run")


@pytest.fixture
def newest(unfinished):
    """The newest checkpoint of that."""
    return max(unfinished.glob("checkpoints/*"))


def states(run):
    """What is not whole."""
    return {file.name: file.state for file in textgen.verify(run).files if file.state != "whole"}


def cause(run, name):
    """What `verify` says of the only file that is not whole."""
    (damaged,) = (file for file in textgen.verify(run).files if file.state != "whole")
    assert (damaged.name, damaged.state) == (name, "damaged")
    return damaged.cause


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
    assert not textgen.verify(finished).loads
    with pytest.raises((textgen.RunError, textgen.PipelineError), match=re.escape(name)) as caught:
        textgen.load(finished)
    if name in ("tokenizer.json", "model.safetensors"):
        error = caught.value
        checksums = [hashlib.sha256(data).hexdigest() for data in (good, path.read_bytes())]
        assert isinstance(error, textgen.CorruptFileError)
        assert [error.path, error.expected, error.actual] == [path, *checksums]
        assert ("git lfs pull" in str(error)) == (how == "git lfs pointer")
        assert "restore it from a copy, or train anew with `overwrite`" in str(error)


@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(unfinished, newest, caplog, name):
    path = newest / name
    good = path.read_bytes()
    for how in DAMAGE.keys() - ({"flipped"} if name == "manifest.json" else set()):
        path.write_bytes(DAMAGE[how](good))
        assert str(path) in cause(unfinished, f"checkpoints/{newest.name}")
    before = int(min(unfinished.glob("checkpoints/*")).name[5:])
    with pytest.warns(UserWarning, match=f"the model is that of step {before}$"):
        textgen.load(unfinished).close()
    assert f"checkpoint of step {int(newest.name[5:])} is damaged" in caplog.text


@pytest.mark.parametrize("name", RUN_FILES[1:])
def test_a_file_that_is_missing_is_named(finished, name):
    (finished / name).unlink()
    assert states(finished) == {name: "missing"}
    with pytest.raises(textgen.CorruptFileError, match=re.escape(name)):
        textgen.load(finished)


@pytest.mark.fault(4)
def test_all_checkpoints_damaged_is_an_error(unfinished):
    for path in unfinished.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(flip(path.read_bytes()))
    before = tree(unfinished)
    said = "no checkpoint of this run is intact.*`overwrite` starts again"
    with pytest.raises(textgen.CorruptFileError, match=said):
        textgen.run(unfinished / "pipeline.toml")
    assert before.items() <= tree(unfinished).items()
    assert textgen.run(unfinished / "pipeline.toml", overwrite=True).outcome == "trained"


def test_a_run_whose_best_checkpoint_is_damaged_resumes(unfinished, caplog):
    first = min(unfinished.glob("checkpoints/*"))
    (first / "model.safetensors").write_bytes(LFS)
    run = textgen.run(unfinished / "pipeline.toml")
    assert run.outcome == "resumed"
    assert f"checkpoint of step {int(first.name[5:])}, the best so far, is damaged" in caplog.text
    assert textgen.verify(unfinished).whole


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
            with pytest.raises(textgen.RunError, match=re.escape(f"{path}: it cannot be read")):
                textgen.run(unfinished / "pipeline.toml")
            assert states(unfinished) == {f"checkpoints/{folder.name}": "unreadable"}
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


# Well-formed files of another structure, with the checksums put right: an error that names the file
# and the key.


def changed(value, key, new):
    """A copy with another value at a dotted key, whose parts have no dots; without the key if that
    is `...`.
    """
    made = copy.deepcopy(value)
    *parents, last = key.split(".")
    place = functools.reduce(dict.__getitem__, parents, made)
    place[last] = new
    if new is ...:
        del place[last]
    return made


def write(path, run, value):
    path.write_text(json.dumps(signed(value) if path.name == "run.json" else value))
    seal(path, run)


OPTIONAL = (
    "data.lost_share",
    "steps",
    "stable_steps",
    "best_step",
    "best_loss",
    "cause",
    "decided",
    "priming",
    "stopped",
)
FREE = ("fingerprint.", "environment.", "pipeline.", "decided.", "files.", "checksum", "format_v")
TABLES = ("fingerprint", "fingerprint.seed", "fingerprint.corpus.sha256", "environment", "data")


def test_a_record_of_another_structure_is_named_with_the_key(unfinished):
    path, record = unfinished / "run.json", record_of(unfinished)
    checked = [key for key in flat(record) if not key.startswith(FREE)]
    for key in [*checked, *TABLES]:
        wrong = "a" if key == "components" else ["a"]
        for value in (wrong, *([] if key in OPTIONAL else [...])):
            write(path, unfinished, changed(record, key, value))
            assert key in cause(unfinished, "run.json")
    for key, value in (
        ("seed", -1),
        ("step", 10**400),
        ("step", True),
        ("status", "done"),
        ("data.extra", 1),
        ("files", {}),
        ("files", {"tokenizer.json": "abc"}),
        ("environment", {"os": "\x1b[31m"}),
    ):
        write(path, unfinished, changed(record, key, value))
        assert key in cause(unfinished, "run.json")


def test_a_checkpoint_of_another_structure_is_named_with_the_key(unfinished, newest):
    name = f"checkpoints/{newest.name}"
    manifest = json.loads((newest / "manifest.json").read_bytes())
    for value in (..., [], {}, {"trainer.json": "abc"}):
        write(newest / "manifest.json", unfinished, changed(manifest, "files", value))
        assert "manifest.json: files" in cause(unfinished, name)
    write(newest / "manifest.json", unfinished, manifest)
    state = json.loads((newest / "trainer.json").read_bytes())
    for key in ("trainer", "progress", *(f"progress.{key}" for key in state["progress"])):
        write(newest / "trainer.json", unfinished, changed(state, key, "5"))
        assert f"{key}: " in cause(unfinished, name)
    write(newest / "trainer.json", unfinished, changed(state, "progress.step", 1))
    assert "trainer.json: it is of step 1" in cause(unfinished, name)


def test_a_state_that_is_not_of_the_trainer_is_an_error_of_its_file(unfinished, newest):
    path = newest / "trainer.json"
    state = json.loads(path.read_bytes())
    for values in ({"step": "5"}, {"optimizer": 5}):
        write(path, unfinished, {**state, "trainer": {**state["trainer"], **values}})
        with pytest.raises(textgen.CorruptFileError, match="its trainer refuses it") as caught:
            textgen.run(unfinished / "pipeline.toml")
        assert caught.value.path == path


@pytest.mark.parametrize("name", ["optimizer.0.0.momentum_buffer", "carried.0"])
def test_arrays_of_training_of_another_shape_are_an_error_of_the_trainer(unfinished, newest, name):
    path = newest / "trainer.safetensors"
    arrays = load(path.read_bytes())
    path.write_bytes(save({**arrays, name: arrays[name][..., :3].copy()}))
    seal(path, unfinished)
    with pytest.raises(textgen.CorruptFileError, match="its trainer refuses it"):
        textgen.run(unfinished / "pipeline.toml")


def test_a_vocabulary_of_another_structure_is_named(finished):
    path = finished / "tokenizer.json"
    good = json.loads(path.read_bytes())
    tokens = good["tokens"]
    wrong = (None, {}, [], ["a"], [*tokens, 5], [*tokens, "ab"], [*tokens, "a"])
    for state in (
        *({**good, "tokens": new} for new in wrong),
        *({}, {**good, "type": "bpe"}, {**good, "extra": 1}),
    ):
        write(path, finished, state)
        with pytest.raises(textgen.CorruptFileError, match=r"tokenizer\.json"):
            textgen.load(finished)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("tokenizer.json", lambda data: b"{}"),
        ("model.safetensors", lambda data: save({})),
        ("pipeline.toml", lambda data: data.replace(b"hidden_size", b"hidden_sizes")),
    ],
)
def test_what_another_version_refuses_names_both(finished, name, new):
    path, record = finished / name, record_of(finished)
    path.write_bytes(new(path.read_bytes()))
    for version in ("", "0.0.1"):
        for each in record["components"]:
            each["version"] = version or each["version"]
        write(finished / "run.json", finished, record)
        seal(path, finished)
        with pytest.raises(textgen.TextgenError) as caught:
            textgen.load(finished)
        said = f"made with textgen-engine {version}, and {textgen.__version__} is installed"
        assert (said in str(caught.value)) is bool(version)


def test_a_saved_state_of_another_structure_is_named(generator, tmp_path):
    generator.generate("the ", max_new_tokens=5, keep_state=True).state.save(tmp_path / "state")
    arrays = load((tmp_path / "state").read_bytes())
    del arrays["checksum"]
    values = json.loads(arrays["values"].tobytes())

    def save(encoded):
        kept = {**arrays, "values": np.frombuffer(encoded, np.uint8)}
        checksum = np.frombuffer(hashlib.sha256(dump_tensors(kept)).digest(), np.uint8)
        (tmp_path / "state").write_bytes(dump_tensors({**kept, "checksum": checksum}))

    for key in values:
        save(json.dumps(changed(values, key, 5.5)).encode())
        with pytest.raises(textgen.CorruptFileError, match=f"state: .*{key}"):
            textgen.GenerationState.load(tmp_path / "state")
    for how in ("nested deeply", "a huge integer", "no object", "not UTF-8"):
        save(DAMAGE[how](b""))
        with pytest.raises(textgen.CorruptFileError, match="state"):
            textgen.GenerationState.load(tmp_path / "state")


def test_a_lock_owner_of_another_structure_names_nobody(unfinished):
    with RunDirectory(unfinished).locked():
        for text in ('{"pid": "5"}', '{"pid": -1}', '{"pid": true}', "[" * 100_000, ""):
            (unfinished / ".lock-owner.json").write_text(text)
            with pytest.raises(textgen.RunLockedError, match="in use by another run") as caught:
                textgen.Engine().finish(unfinished)
            assert caught.value.pid is None


@pytest.mark.parametrize("version", [0, 99, "1", None])
def test_another_format_is_named(unfinished, version):
    record = {**record_of(unfinished), "format_version": version}
    write(unfinished / "run.json", unfinished, record)
    with pytest.raises(textgen.RunError, match=r"run\.json: its format version is .* reads 1"):
        textgen.load(unfinished)


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
    assert (found["whole"], found["loads"]) == (False, False)
    done = run_textgen("doctor", "runs/p", folder=tmp_path)
    assert done.returncode == 1
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[:-1])
    assert shown.keys() == {*RUN_FILES, f"checkpoints/{step.name}"}
    assert shown.pop("run.json") == "whole"
    assert shown["pipeline.toml"].startswith("damaged: 2:8: not valid TOML")
    for name, rest in shown.items():
        assert re.match("damaged: [^/:]", rest), rest
        assert Path(name).name not in rest


@pytest.mark.parametrize("path", [None, b"run", "", "a\0b"])
def test_what_is_no_path_is_a_usage_error(path):
    for call in (textgen.load, textgen.verify, textgen.GenerationState.load):
        with pytest.raises(textgen.UsageError) as caught:
            call(path)
        assert caught.value.argument == "path"
