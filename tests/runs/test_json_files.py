"""JSON files of a run that are well-formed, and of another structure: an error that names the file and the key."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import tables

import textgen
from textgen.files.reading import dump_tensors, load_tensors
from textgen.runs.formats import signed

OTHERS: tuple[Any, ...] = (None, "5", 1.5, True, -1, 2**63, 10**400, [], {}, float("nan"))
BOMBS = (
    b"[" * 100_000,
    b'{"step":' * 100_000,
    b'{"step": 1' + b"0" * 5000 + b"}",
    b"[]",
    b"5",
    b"",
    b"\xff\xfe{",
    b"\0",
)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was stopped."""
    folder = tmp_path_factory.mktemp("unfinished")
    (folder / "text.txt").write_text(
        "Once a raven flew over seven hills, and none came back.\n" * 50
    )
    steps = iter(range(100))
    with pytest.raises(textgen.Interrupted):
        textgen.run(
            tables(folder, "sgd", "shuffled"),
            output=folder / "run",
            cancelled=lambda: next(steps) == 4,
        )
    for step in sorted((folder / "run/checkpoints").iterdir())[:-1]:
        shutil.rmtree(step)
    return folder / "run"


@pytest.fixture
def run(unfinished: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil, with one checkpoint."""
    shutil.copytree(unfinished, tmp_path / "run")
    return tmp_path / "run"


def keys(value: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a JSON object."""
    for key, item in value.items() if isinstance(value, Mapping) else ():
        yield f"{prefix}{key}"
        yield from keys(item, f"{prefix}{key}.")


def changed(value: Mapping[str, Any], key: str, new: Any) -> dict[str, Any]:
    """A copy with another value at a dotted key, whose parts have no dots; without the key if that is `...`."""
    made: Any = copy.deepcopy(dict(value))
    place, *parents = made, *key.split(".")[:-1]
    for parent in parents:
        place = place[parent]
    if new is ...:
        del place[key.split(".")[-1]]
    else:
        place[key.split(".")[-1]] = new
    return dict(made)


def write_record(run: Path, record: dict[str, Any]) -> Path:
    (run / "run.json").write_text(json.dumps(signed(record)))
    return run / "run.json"


def write_progress(run: Path, state: dict[str, Any]) -> Path:
    """trainer.json of the checkpoint, with its checksum in the manifest."""
    (folder,) = run.glob("checkpoints/*")
    data = json.dumps(state).encode()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["trainer.json"] = hashlib.sha256(data).hexdigest()
    (folder / "trainer.json").write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "trainer.json"


def write_manifest(run: Path, manifest: dict[str, Any]) -> Path:
    (path,) = run.glob("checkpoints/*/manifest.json")
    path.write_text(json.dumps(manifest))
    return path


def cause(run: Path, name: str) -> str:
    """What `verify` says of the only file that is not whole; each load and resume says the same."""
    (bad,) = [file for file in textgen.verify(run).files if file.state != "whole"]
    assert bad.state == "damaged"
    assert bad.name == name
    return bad.cause


FREE = (
    "fingerprint.",
    "environment.",
    "pipeline.",
    "decided",
    "stopped",
    "files",
)  # of these, the values


OPTIONAL = ("steps", "cause")


def required(record: Mapping[str, Any]) -> list[str]:
    return [
        key
        for key in keys(record)
        if not key.startswith(FREE) and key not in ("format_version", "checksum")
    ]


def test_a_record_of_another_structure_is_named_with_the_key(run: Path) -> None:
    record = json.loads((run / "run.json").read_bytes())
    cases = 0
    for key in required(record):
        for new in (*OTHERS, ...):
            before = record
            for part in key.split("."):
                before = before[part]
            if type(new) is type(before) and new not in (-1, 2**63, 10**400):
                continue
            if (key in ("seed", "fingerprint.seed") and new == 2**63) or (
                key in OPTIONAL and new in (None, ...)
            ):
                continue
            if key.startswith("data.") and new in (-1, 1.5, 2**63):
                continue
            path = write_record(run, changed(record, key, new))
            said = cause(run, "run.json")
            assert str(path) in said
            assert key in said or new == 10**400, (key, new, said)
            cases += 1
    assert cases > 100
    for key in ("data.extra", "fingerprint.extra"):
        write_record(run, changed(record, key, 1))
        assert f"{key}: unknown key" in cause(run, "run.json")
    for key, new in (
        ("files", {"tokenizer.json": "abc"}),
        ("files", {}),
        ("environment", {"os": "\x1b[31m"}),
    ):
        write_record(run, changed(record, key, new))
        assert key in cause(run, "run.json")


def test_a_checkpoint_of_another_structure_is_named_with_the_key(run: Path) -> None:
    (folder,) = run.glob("checkpoints/*")
    name = str(folder.relative_to(run))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    state = json.loads((folder / "trainer.json").read_bytes())
    for new in (*OTHERS, ...):
        write_manifest(run, changed(manifest, "files", new))
        assert "files" in cause(run, name) or new == 10**400
    for new in (*OTHERS, ...):
        damaged = copy.deepcopy(manifest)
        damaged["files"]["trainer.json"] = "" if new is ... else new
        write_manifest(run, damaged)
        assert "files" in cause(run, name) or new == 10**400
    write_manifest(run, manifest)
    for key in ("trainer", "progress", *(f"progress.{key}" for key in state["progress"])):
        for new in ("5", [[]], {"a": 1}, True) + (
            () if key == "progress.seconds" else (float("-inf"),)
        ):
            if (key, type(new)) == ("trainer", dict) or (
                key == "progress.best_loss" and new == float("-inf")
            ):
                continue
            path = write_progress(run, changed(state, key, new))
            said = cause(run, name)
            assert str(path) in said
            assert key.partition(".")[0] in said, (key, new, said)
    write_progress(run, state)
    assert textgen.verify(run).whole


def test_what_is_not_of_the_trainer_is_an_error_of_its_file(run: Path) -> None:
    (folder,) = run.glob("checkpoints/*")
    state = json.loads((folder / "trainer.json").read_bytes())
    pipeline = run / "pipeline.toml"
    for values in ({}, {**state["trainer"], "step": "5"}, {**state["trainer"], "optimizer": 5}):
        path = write_progress(run, {**state, "trainer": values})
        with pytest.raises(textgen.CorruptFileError, match="its trainer refuses it") as caught:
            textgen.run(pipeline)
        assert caught.value.path == path


def test_a_vocabulary_of_another_structure_is_named(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    path, record = (
        tmp_path / "run/tokenizer.json",
        json.loads((finished_run / "run.json").read_bytes()),
    )
    good = json.loads(path.read_bytes())
    tokens = good["tokens"]
    for state in (
        *(
            {**good, "tokens": new}
            for new in (*OTHERS, [], ["a"], [*tokens, 5], [*tokens, "ab"], [*tokens, "a"])
        ),
        *({}, {**good, "type": "bpe"}, {**good, "extra": 1}, {"type": "char"}),
    ):
        data = json.dumps(state).encode()
        path.write_bytes(data)
        record["files"]["tokenizer.json"] = hashlib.sha256(data).hexdigest()
        write_record(tmp_path / "run", record)
        with pytest.raises(textgen.CorruptFileError, match=r"tokenizer\.json"):
            textgen.load(tmp_path / "run")


def test_a_saved_state_of_another_structure_is_named(
    generator: textgen.Generator, tmp_path: Path
) -> None:
    state = generator.generate("the ", max_new_tokens=5, keep_state=True).state
    assert state is not None
    path = tmp_path / "state"

    state.save(path)
    arrays = load_tensors(path, path.read_bytes())
    del arrays["checksum"]
    saved = json.loads(arrays["values"].tobytes())

    def write(values: bytes) -> None:
        kept = {**arrays, "values": np.frombuffer(values, np.uint8)}
        checksum = np.frombuffer(hashlib.sha256(dump_tensors(kept)).digest(), np.uint8)
        path.write_bytes(dump_tensors({**kept, "checksum": checksum}))

    for key, before in saved.items():
        for new in (*OTHERS, ...):
            if (type(new) is type(before) and new not in (-1, 10**400)) or (
                key in ("seed", "index") and new == 2**63
            ):
                continue
            if (key in ("pending", "tail") and new == []) or (
                key in ("model", "tail", "open_end") and new is ...
            ):
                continue
            write(json.dumps(changed(saved, key, new)).encode())
            with pytest.raises(textgen.CorruptFileError, match="state: ") as caught:
                textgen.GenerationState.load(path)
            assert key in str(caught.value) or new == 10**400
    for bomb in BOMBS:
        write(bomb or b" ")
        with pytest.raises(textgen.CorruptFileError, match="state"):
            textgen.GenerationState.load(path)
    write(json.dumps({**saved, "pending": [10**6]}).encode())
    with pytest.raises(textgen.UsageError, match="ids outside the vocabulary"):
        generator.generate(state=textgen.GenerationState.load(path))


def test_deep_and_huge_json_is_refused_everywhere(run: Path) -> None:
    (folder,) = run.glob("checkpoints/*")
    for path in (
        run / "run.json",
        run / "tokenizer.json",
        folder / "manifest.json",
        folder / "trainer.json",
    ):
        good = path.read_bytes()
        for bomb in BOMBS:
            path.write_bytes(bomb)
            assert str(path) in "".join(file.cause for file in textgen.verify(run).files)
        path.write_bytes(good)
    assert textgen.verify(run).whole


def test_a_lock_owner_of_another_structure_names_nobody(run: Path, tmp_path: Path) -> None:
    from textgen.runs.directory import RunDirectory

    with RunDirectory(run).locked():
        for text in (
            '{"pid": "5"}',
            '{"pid": -1}',
            '{"pid": true}',
            "[]",
            "[" * 100_000,
            '{"pid": 1e400}',
            "",
        ):
            (run / ".lock-owner.json").write_text(text)
            with pytest.raises(textgen.RunLockedError, match="in use by another run") as caught:
                textgen.Engine().finish(run)
            assert caught.value.pid is None


def test_the_format_of_a_newer_textgen_says_to_upgrade(run: Path) -> None:
    record = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps({**record, "format_version": 99, "new": {}}))
    with pytest.raises(
        textgen.RunError, match=r"run\.json: its format version is 99, and .* reads 1"
    ):
        textgen.load(run)
    for version in (0, "1", None, True, 1.0):
        write_record(run, {**record, "format_version": version})
        with pytest.raises(textgen.RunError, match=r"format.version"):
            textgen.load(run)


@pytest.mark.parametrize("path", [None, 5, b"run", "", "a\0b", ["run"]])
def test_what_is_no_path_is_a_usage_error(path: Any) -> None:
    engine = textgen.Engine()
    for call in (textgen.load, engine.finish, textgen.verify, textgen.GenerationState.load):
        with pytest.raises(textgen.UsageError, match="path") as caught:
            call(path)
        assert caught.value.argument == "path"
    if path != "a\0b":  # TOML files may be called anything
        with pytest.raises(textgen.UsageError, match="expected the path of a TOML file"):
            engine.run(path)
