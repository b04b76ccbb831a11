"""A run directory or a saved state that somebody made who means harm."""

import io
import os
import re
import shutil
import struct
import types
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from components import engine_of
from raising import raises
from sealing import SECRET, seal

import textgen
from textgen.files.vocabularies import dump_vocabulary

FILES = ("run.json", "pipeline.toml", "tokenizer.json", "model.safetensors")


@pytest.fixture(scope="module")
def indexed(finished_run, tmp_path_factory):
    """A run, and a saved state beside it."""
    folder = tmp_path_factory.mktemp("indexed")
    shutil.copytree(finished_run, folder / "run")
    with textgen.load(folder / "run") as generator:
        made = generator.generate("the ", max_new_tokens=3, keep_state=True)
        made.state.save(folder / "state")
    return folder


@pytest.fixture
def stranger(indexed, tmp_path):
    """A copy of it, to spoil."""
    return shutil.copytree(indexed, tmp_path / "stranger")


def load_all(folder):
    """Read every file of the run, and the saved state."""
    with textgen.load(folder / "run") as generator:
        generator.generate(state=textgen.GenerationState.load(folder / "state"), max_new_tokens=2)


INSTEAD = {
    "pipe": lambda path, secret: os.mkfifo(path),
    "device": lambda path, secret: path.symlink_to("/dev/zero"),
    "link": lambda path, secret: path.symlink_to(secret),
    "loop": lambda path, secret: path.symlink_to(path.name),
}


@pytest.mark.unix
@pytest.mark.parametrize("how", INSTEAD)
def test_what_is_no_file_is_refused(stranger, how):
    (stranger.parent / "secret").write_text(SECRET)
    load_all(stranger)
    for name in (*(f"run/{name}" for name in FILES), "state"):
        path = stranger / name
        path.rename(stranger / "aside")
        INSTEAD[how](path, stranger.parent / "secret")
        with pytest.raises(textgen.RunError) as caught:
            load_all(stranger)
        assert caught.value.path in (path, stranger / "run")
        assert SECRET not in str(caught.value)
        path.unlink()
        (stranger / "aside").rename(path)
    load_all(stranger)


def test_a_link_to_another_file_of_the_run_is_followed(stranger):
    (stranger / "run/tokenizer.json").rename(stranger / "run/vocabulary")
    (stranger / "run/tokenizer.json").symlink_to("vocabulary")
    load_all(stranger)


def with_header(header):
    return struct.pack("<Q", len(header)) + header


HEADERS = {
    "longer than the file": struct.pack("<Q", 2**63) + b"{}",
    "of a terabyte": with_header(
        b'{"a": {"dtype": "F32", "shape": [274877906944], "data_offsets": [0, 1099511627776]}}'
    ),
    "nested deeply": with_header(b"[" * 100_000),
}


@pytest.mark.parametrize("which", HEADERS)
def test_headers_that_promise_what_is_not_there(stranger, which):
    (stranger / "state").write_bytes(HEADERS[which])
    with raises(textgen.CorruptFileError, path=stranger / "state"):
        textgen.GenerationState.load(stranger / "state")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_hole_is_not_read(stranger, name):
    with (stranger / "run" / name).open("r+b") as file:
        file.truncate(1 << 40)
    with raises(textgen.RunError, path=stranger / "run" / name):
        textgen.load(stranger / "run")


def test_json_of_many_values_is_not_parsed(stranger):
    (stranger / "run/run.json").write_bytes(b'{"a": [' + b"{}," * 3_000_000 + b"{}]}")
    with raises(textgen.RunError, path=stranger / "run/run.json"):
        textgen.load(stranger / "run")


@pytest.mark.unix
def test_a_corpus_that_is_a_device_is_read_by_nothing(stranger, monkeypatch):
    """Not by what loads a run, which needs no corpus, nor by a report on what is copied, or by its
    pipeline.
    """
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(stranger / "no-tokens"))
    pipeline = stranger / "run/pipeline.toml"
    pipeline.write_text(re.sub('path = ".*"', 'path = "/dev/zero"', pipeline.read_text(), count=1))
    with pytest.warns(UserWarning):
        generator = textgen.load(stranger / "run")
    with generator:
        assert generator.generate("the ", max_new_tokens=3).text
        with raises(textgen.CorpusError, path=Path("/dev/zero")):
            generator.copy_finder()
    with raises(textgen.CorpusError, path=Path("/dev/zero")):
        textgen.run(pipeline, output=stranger / "mine")


@attrs.frozen
class Beside:
    """Has another run."""

    other: Any = textgen.option(kind="run", help="a run")

    def __call__(self, logits, history):
        return logits


def test_what_a_run_reads_and_writes_elsewhere_is_said_before(
    tmp_path, finished_run, tiny_pipeline, write_pipeline
):
    (tmp_path / "theirs/texts").mkdir(parents=True)
    diary, link = tmp_path / "corpus.txt", {"type": "file", "path": "texts"}
    (tmp_path / "theirs/texts/mine.txt").symlink_to(diary)
    made, start = {**tiny_pipeline(), "output": "run"}, {"start": str(finished_run)}
    reading, found = f"reading {diary}", f"corpus {tmp_path / 'theirs/texts'}: 1 file, 840 B"
    beside = [{"type": "odd", "other": str(finished_run)}]
    odd = textgen.Component("odd", Beside, lambda config, context: config)
    engine = engine_of(sampler=[odd])
    for name, changes, said in (
        ("p.toml", {}, []),
        ("theirs/a.toml", {"output": "a"}, [reading]),
        ("theirs/b.toml", {"output": "../b"}, [f"writing {tmp_path / 'b'}", reading]),
        ("theirs/c.toml", {"output": "c", "corpus": link}, [reading, found]),
        ("theirs/d.toml", {"output": "d", "model": start}, [reading, f"reading {finished_run}"]),
        ("theirs/e.toml", {"output": "e", "sampler": beside}, [reading, f"reading {finished_run}"]),
    ):
        console = io.StringIO()
        engine.run(write_pipeline({**made, **changes}, name), console=console)
        assert console.getvalue().splitlines() == said


def test_a_saved_state_of_other_shapes_is_blamed(indexed):
    state = textgen.GenerationState.load(indexed / "state")
    decoder = {**state.decoder, "hidden": state.decoder["hidden"].ravel()}
    other = attrs.evolve(state, decoder=decoder)
    with textgen.load(indexed / "run") as generator:
        for options in ({}, {"prompt": "the", "echo": True, "logprobs": 1}):
            with raises(textgen.UsageError, argument="state"):
                generator.generate(**options, state=other, max_new_tokens=2)


def test_weights_that_are_no_numbers_are_named(stranger):
    file = stranger / "run/model.safetensors"
    arrays = safetensors.numpy.load(file.read_bytes())
    name, array = arrays.popitem()
    arrays[name] = np.full_like(array, np.nan)
    file.write_bytes(safetensors.numpy.save(arrays))
    seal(file, stranger / "run")
    with raises(textgen.CorruptFileError, path=file):
        textgen.load(stranger / "run")


@pytest.mark.parametrize("dtype", ["int32", "bool", "bfloat16", "float8_e5m2"])
def test_weights_of_another_type_are_refused(stranger, textgen, dtype):
    file, wanted = stranger / "run/model.safetensors", getattr(torch, dtype)
    weights = safetensors.torch.load(file.read_bytes())
    made = {name: tensor.to(wanted) for name, tensor in weights.items()}
    file.write_bytes(safetensors.torch.save(made))
    seal(file, stranger / "run")
    said = "convert them to F32" if wanted.is_floating_point else f"head.bias is {dtype}"
    done = textgen("generate", "run", cwd=stranger)
    assert (done.code, said in done.stderr, len(done.stderr.splitlines())) == (1, True, 1)
    report = textgen("doctor", "run", cwd=stranger)
    assert (report.code, "the run cannot be used" in report.stdout) == (1, True)


def test_a_vocabulary_that_is_too_large_is_not_parsed(stranger):
    file = stranger / "run/tokenizer.json"
    file.write_bytes(b'{"a": "' + b"a" * (64 << 20) + b'"}')
    seal(file, stranger / "run")
    with raises(textgen.CorruptFileError, path=file):
        textgen.load(stranger / "run")


def test_a_vocabulary_that_could_not_be_read_back_is_refused_before_training():
    large = types.SimpleNamespace(to_dict=lambda: {"text": "a" * (64 << 20)})
    with pytest.raises(textgen.UsageError):
        dump_vocabulary(large)
