"""Well-formed files of another structure, with checksums put right: an error names file and key."""

import copy
import functools
import hashlib
import json

import attrs
import numpy as np
import pytest
from raising import raises
from safetensors.numpy import load, save
from sealing import seal
from small_run import record_of
from test_damage import DAMAGE, cause

import textgen
from textgen.files.tensors import dump_tensors
from textgen.plugin.nested_tables import flat
from textgen.runs.directory import RunDirectory
from textgen.runs.formats import Progress, signed


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
    *(field.name for field in attrs.fields(Progress)),
    "data.lost_share",
    "data.held_out",
    "cause",
    "parameters",
    "priming",
    "stopped",
)


FREE = ("fingerprint.", "environment.", "pipeline.", "files.", "checksum", "format_v")


TABLES = ("fingerprint", "fingerprint.seed", "fingerprint.corpus.sha256", "environment", "data")


def test_a_record_of_another_structure_is_named_with_the_key(unfinished):
    path, record = unfinished / "run.json", record_of(unfinished)
    checked = [key for key in flat(record) if not key.startswith(FREE)]
    for key in [*checked, *TABLES]:
        wrong = "a" if key == "components" else ["a"]
        needed = key == "step" or key not in OPTIONAL
        for value in (wrong, *([...] if needed else [])):
            write(path, unfinished, changed(record, key, value))
            assert key in cause(unfinished, "run.json")
    for key, value in (
        ("seed", -1),
        ("step", 10**400),
        ("step", True),
        ("status", "done"),
        ("data.extra", 1),
        ("files", {}),
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


def test_a_state_that_is_not_of_the_trainer_is_an_error_of_its_file(unfinished, newest):
    path, other = newest / "trainer.json", newest / "trainer.safetensors"
    state, arrays = json.loads(path.read_bytes()), load(other.read_bytes())

    def is_refused():
        with pytest.raises(textgen.CorruptFileError) as caught:
            textgen.run(unfinished / "pipeline.toml")
        assert caught.value.path == path
        assert "`overwrite`" in caught.value.advice

    for values in ({"step": "5"}, {"optimizer": 5}):
        write(path, unfinished, {**state, "trainer": {**state["trainer"], **values}})
        is_refused()
    write(path, unfinished, state)
    for name in ("optimizer.0.state.0.momentum_buffer", "carried.0"):
        other.write_bytes(save({**arrays, name: arrays[name][..., :3].copy()}))
        seal(other, unfinished)
        is_refused()


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
        with raises(textgen.CorruptFileError, path=path):
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
        with pytest.raises(textgen.CorruptFileError, match=key):
            textgen.GenerationState.load(tmp_path / "state")
    for how in ("nested deeply", "a huge integer", "no object", "not UTF-8"):
        save(DAMAGE[how](b""))
        with raises(textgen.CorruptFileError, path=tmp_path / "state"):
            textgen.GenerationState.load(tmp_path / "state")


def test_a_lock_owner_of_another_structure_names_nobody(unfinished):
    with RunDirectory(unfinished).locked():
        for text in ("{}", "[5]", "[" * 100_000, ""):
            (unfinished / ".lock-owner.json").write_text(text)
            with raises(textgen.RunLockedError, pid=None):
                textgen.Engine().finish(unfinished)


@pytest.mark.parametrize("version", [0, 99, "1", None])
def test_another_format_is_named(unfinished, version):
    record = {**record_of(unfinished), "format_version": version}
    write(unfinished / "run.json", unfinished, record)
    with raises(textgen.RunError, path=unfinished / "run.json"):
        textgen.load(unfinished)
