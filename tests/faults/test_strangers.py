"""A run directory or a saved state that somebody made who means harm."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import safetensors.numpy

import textgen
from campaigns.mutations import SECRET, seal
from textgen.files.reading import dump_vocabulary

FILES = ("run.json", "pipeline.toml", "tokenizer.json", "model.safetensors")


@pytest.fixture(scope="module")
def indexed(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a saved state beside it."""
    folder = tmp_path_factory.mktemp("indexed")
    shutil.copytree(finished_run, folder / "run")
    with textgen.load(folder / "run") as generator:
        state = generator.generate("the ", max_new_tokens=3, keep_state=True).state
        assert state is not None
        state.save(folder / "state")
    return folder


@pytest.fixture
def stranger(indexed: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    shutil.copytree(indexed, tmp_path / "stranger")
    return tmp_path / "stranger"


def load_all(folder: Path) -> None:
    """Read every file of the run, and the saved state."""
    with textgen.load(folder / "run") as generator:
        generator.generate(state=textgen.GenerationState.load(folder / "state"), max_new_tokens=2)


EVERY = (
    *(f"run/{name}" for name in FILES),
    "state",
)
INSTEAD: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "pipe": (lambda path, secret: os.mkfifo(path), "not a regular file"),
    "device": (lambda path, secret: path.symlink_to("/dev/zero"), "leads out|not a regular file"),
    "link": (lambda path, secret: path.symlink_to(secret), "leads out|not a safetensors file"),
    "folder": (lambda path, secret: path.mkdir(), "not a regular file|run is not a run directory"),
    "loop": (
        lambda path, secret: path.symlink_to(path.name),
        "not a regular file|run is not a run directory",
    ),
}


@pytest.mark.parametrize("how", INSTEAD)
def test_what_is_no_file_is_refused(stranger: Path, how: str) -> None:
    make, said = INSTEAD[how]
    (stranger.parent / "secret").write_text(SECRET)
    load_all(stranger)
    for name in EVERY:
        path = stranger / name
        path.rename(stranger / "aside")
        make(path, stranger.parent / "secret")
        with pytest.raises(textgen.RunError, match=said) as caught:
            load_all(stranger)
        assert name in str(caught.value) or "run is not a run directory" in str(caught.value)
        assert SECRET not in str(caught.value)
        path.rmdir() if how == "folder" else path.unlink()
        (stranger / "aside").rename(path)
    load_all(stranger)


def test_a_link_to_another_file_of_the_run_is_followed(stranger: Path) -> None:
    (stranger / "run/tokenizer.json").rename(stranger / "run/vocabulary")
    (stranger / "run/tokenizer.json").symlink_to("vocabulary")
    load_all(stranger)


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def entry(shape: Any, offsets: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def with_tensors(**entries: Any) -> bytes:
    return with_header(json.dumps(entries).encode(), b"0000")


HEADERS: dict[str, bytes] = {
    "longer than the file": struct.pack("<Q", 2**63) + b"{}",
    "of a terabyte": with_tensors(a=entry([2**38], [0, 2**40])),
    "of a negative length": with_tensors(a=entry([-1, -1], [0, 4])),
    "of bytes that belong to two": with_tensors(a=entry([1], [0, 4]), b=entry([1], [0, 4])),
    "of a type that NumPy lacks": with_tensors(a=entry([2], [0, 4], "BF16")),
    "nested deeply": with_header(b"[" * 100_000),
    "a list": with_header(b"[]"),
}


@pytest.mark.parametrize("which", HEADERS)
def test_headers_that_promise_what_is_not_there(stranger: Path, which: str) -> None:
    (stranger / "state").write_bytes(HEADERS[which])
    with pytest.raises(textgen.CorruptFileError, match=r"state: it is not a safetensors file \("):
        textgen.GenerationState.load(stranger / "state")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_hole_is_not_read(stranger: Path, name: str) -> None:
    with (stranger / "run" / name).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        textgen.RunError,
        match=f"{name}: it (has 1,099,511,627,776 bytes|is not a safetensors file)",
    ):
        textgen.load(stranger / "run")


JSON = {
    "nested deeply": b"[" * 1_000_000,
    "of many values": b'{"a": [' + b"{}," * 3_000_000 + b"{}]}",
    "with a huge number": b'{"format_version": 1' + b"0" * 100_000 + b"}",
    "no object": b"[1]",
    "not UTF-8": b'{"a": "\xff"}',
}


@pytest.mark.parametrize("which", JSON)
def test_json_that_would_take_memory_or_time(stranger: Path, which: str) -> None:
    (stranger / "run/run.json").write_bytes(JSON[which])
    with pytest.raises(textgen.RunError, match=r"run/run\.json: "):
        textgen.load(stranger / "run")


def test_a_key_of_very_many_parts_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("a." * 40_000 + "a = 1")  # tomllib alone takes half a minute
    with pytest.raises(textgen.PipelineError, match=r"p\.toml: a key has more than 64 parts"):
        textgen.Engine().pipeline(tmp_path / "p.toml")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_a_corpus_that_is_a_device_is_read_by_nothing(stranger: Path) -> None:
    """Not by what loads a run, which needs no corpus, nor by a report on what is copied, or by its
    pipeline.
    """
    pipeline = stranger / "run/pipeline.toml"
    assert stat.S_ISCHR(Path("/dev/zero").stat().st_mode)
    lines = pipeline.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("path = "))
    pipeline.write_text("\n".join([*lines[:at], 'path = "/dev/zero"', *lines[at + 1 :]]))
    with pytest.warns(UserWarning, match="was changed since the run was made"):
        generator = textgen.load(stranger / "run")
    with generator:
        assert generator.generate("the ", max_new_tokens=3).text
        with pytest.raises(textgen.CorpusError, match="/dev/zero: it is not a regular file"):
            generator.copy_finder()
    with pytest.raises(textgen.CorpusError, match="/dev/zero: it is not a regular file"):
        textgen.run(pipeline, output=stranger / "mine")


def test_what_a_run_reads_elsewhere_is_said(
    tmp_path: Path, tiny_pipeline: Any, write_pipeline: Any
) -> None:
    import io

    for folder, said in (
        (tmp_path, ""),
        (tmp_path / "theirs", f"reading {tmp_path / 'corpus.txt'}\n"),
    ):
        folder.mkdir(exist_ok=True)
        console = io.StringIO()
        path = write_pipeline(tiny_pipeline(), f"{folder.relative_to(tmp_path)}/p.toml")
        textgen.Engine().run(path, output=folder / "run", console=console)
        assert console.getvalue() == said


def test_a_saved_state_of_other_shapes_is_blamed(indexed: Path) -> None:
    state = textgen.GenerationState.load(indexed / "state")
    hidden = state.decoder["hidden"].ravel()
    with textgen.load(indexed / "run") as generator:
        other = attrs.evolve(state, decoder={**state.decoder, "hidden": hidden})
        with pytest.raises(textgen.UsageError, match="the saved state does not fit the model"):
            generator.generate(state=other, max_new_tokens=2)
        with pytest.raises(textgen.UsageError, match="the saved state does not fit the model"):
            generator.generate("the", state=other, max_new_tokens=2, echo=True, logprobs=1)


SPOILT_TRAINING: dict[str, Callable[[dict[str, Any]], Any]] = {
    "moments of another shape": lambda arrays: arrays.update({MOMENT: arrays[MOMENT].ravel()[:3]}),
    "a carried state of another shape": lambda arrays: arrays.update(
        {"carried.0": arrays["carried.0"][..., :3]}
    ),
}
MOMENT = "optimizer.0.0.momentum_buffer"


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A pipeline, and a run of it that was stopped after four steps."""
    tables: dict[str, Any] = {
        "device": "cpu",
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {
            "type": "sgd",
            "momentum": 0.5,
            "length": "6 steps",
            "batch_size": 16,
            "order": "streams",
        },
        "observer": [],
    }
    asked, run = iter(range(100)), tmp_path_factory.mktemp("unfinished") / "run"
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables, output=run, cancelled=lambda: next(asked) == 3)
    return tables, run


@pytest.mark.parametrize("how", SPOILT_TRAINING)
def test_a_state_of_training_that_does_not_fit_is_named(
    unfinished: tuple[dict[str, Any], Path], tmp_path: Path, how: str
) -> None:
    tables, run = unfinished
    shutil.copytree(run, tmp_path / "run")
    file = max((tmp_path / "run").glob("checkpoints/*/trainer.safetensors"))
    arrays = safetensors.numpy.load(file.read_bytes())
    SPOILT_TRAINING[how](arrays)
    file.write_bytes(safetensors.numpy.save({name: array.copy() for name, array in arrays.items()}))
    seal(file, tmp_path / "run")
    with pytest.raises(textgen.CorruptFileError, match="its trainer refuses it"):
        textgen.run(tables, output=tmp_path / "run")


def test_weights_that_are_no_numbers_are_named(stranger: Path) -> None:
    file = stranger / "run/model.safetensors"
    arrays = {
        name: array.copy() for name, array in safetensors.numpy.load(file.read_bytes()).items()
    }
    next(iter(arrays.values())).flat[0] = float("nan")
    file.write_bytes(safetensors.numpy.save(arrays))
    seal(file, stranger / "run")
    with pytest.raises(textgen.CorruptFileError, match=r"model\.safetensors: .* not numbers"):
        textgen.load(stranger / "run")


def test_a_vocabulary_that_is_too_large_is_not_parsed(stranger: Path) -> None:
    file = stranger / "run/tokenizer.json"
    file.write_bytes(b'{"a": "' + b"a" * (64 << 20) + b'"}')
    seal(file, stranger / "run")
    with pytest.raises(textgen.CorruptFileError, match=r"tokenizer\.json: it has .* at most"):
        textgen.load(stranger / "run")


def test_a_vocabulary_that_could_not_be_read_back_is_refused_before_training(
    tmp_path: Path,
) -> None:
    class Large:
        def to_dict(self) -> dict[str, Any]:
            return {"text": "a" * (64 << 20)}

    with pytest.raises(textgen.UsageError, match="the vocabulary has 67,108,877 bytes"):
        dump_vocabulary(Large())  # type: ignore[arg-type]
