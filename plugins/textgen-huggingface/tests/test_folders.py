"""Folders of models that somebody made who means harm, or that hold more than a model."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import textgen
from textgen.files import MAX_BYTES
from textgen.runs.formats import signed
from textgen_huggingface.plugin import FolderTokenizerConfig, HuggingFaceConfig

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
INDEX = "model.safetensors.index.json"
# Matching it takes longer than anybody waits.
EXPRESSION = "(a*)*(t*)*(r*)*(.*)*!"


@pytest.fixture(scope="module")
def model(make_pipeline, tmp_path_factory):
    made = textgen.run(make_pipeline("gpt2"), output=tmp_path_factory.mktemp("model") / "run").path
    folder = made.with_name("model")
    folder.mkdir()
    for name in FILES:
        shutil.copy(made / name, folder)
    return folder


@pytest.fixture
def folder(model, tmp_path):
    """A copy of it, to spoil."""
    return shutil.copytree(model, tmp_path / "model")


@pytest.fixture
def tables(make_pipeline, folder):
    """A pipeline that trains its model for one step."""

    def make(**changes):
        pipeline = make_pipeline(None, path=str(folder), config=None, **changes)
        pipeline["tokenizer"] = {"type": "huggingface-tokenizer", "path": str(folder)}
        pipeline["trainer"] |= {"length": "1 step"}
        return pipeline

    return make


def divide(folder, name="w1.safetensors"):
    """Put the weights into another file, which an index names."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / name)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (folder / INDEX).write_text(json.dumps(index))


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_fingerprint_has_the_files_that_an_index_names(folder, tables, tmp_path):
    divide(folder)
    adapting = tables(lora={"rank": 2})
    made = textgen.run(adapting, output=tmp_path / "run")
    textgen.load(made.path, device="cpu").close()
    weights = {name: array * -3 for name, array in load_file(folder / "w1.safetensors").items()}
    save_file(weights, folder / "w1.safetensors", {"format": "pt"})
    with pytest.raises(textgen.ContractError) as caught:
        textgen.load(made.path, device="cpu")
    assert str(folder) in caught.value.cause
    with pytest.raises(textgen.RunMismatchError):
        textgen.run(adapting, output=tmp_path / "run")


@pytest.mark.parametrize("replaced", [False, True])
def test_the_fingerprint_is_of_the_content_whatever_size_and_time_say(replaced, folder, tmp_path):
    options, weights = HuggingFaceConfig(path=folder), folder / "model.safetensors"
    before, status = options.fingerprint(), weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    if replaced:
        (tmp_path / "other").write_bytes(data)
        (tmp_path / "other").replace(weights)
    while weights.stat().st_ctime_ns == status.st_ctime_ns:  # a clock's tick is milliseconds
        weights.write_bytes(data)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights.stat().st_mtime_ns == status.st_mtime_ns
    assert options.fingerprint() != before


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_what_is_no_model_is_refused_before_its_checksum(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(hashlib, "file_digest", None)
    path = tmp_path / "model.bin"
    if kind == "file":
        path.touch()
        os.truncate(path, MAX_BYTES + 1)
    else:
        os.mkfifo(path)
    with pytest.raises(textgen.PipelineError, match="no folder or GGUF file"):
        HuggingFaceConfig(path=path).fingerprint()
    with pytest.raises(textgen.PipelineError, match=r"tokenizer\.path: .*model\.bin"):
        FolderTokenizerConfig(path=path).fingerprint()


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "w.bin", "link.safetensors", 7])
def test_weights_that_an_index_names_are_safetensors_of_the_folder(name, folder, tables, tmp_path):
    weights = load_file(folder / "model.safetensors")
    divide(folder, "w1.safetensors")
    shutil.move(folder / "w1.safetensors", tmp_path / "elsewhere.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    torch.save({key: torch.from_numpy(value) for key, value in weights.items()}, folder / "w.bin")
    change(folder / INDEX, weight_map=dict.fromkeys(weights, name))
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.run(tables(), output=tmp_path / "run")
    (fault,) = caught.value.faults
    cause = "leads out" if name == "link.safetensors" else f"{INDEX} names {name!r}"
    assert (fault.path, cause in fault.expected) == ("model.path", True)


@pytest.mark.parametrize("targets", ["c_attn", EXPRESSION])
def test_an_adapter_beside_a_model_is_not_taken_in(targets, folder, tables, tmp_path):
    config = {"peft_type": "LORA", "target_modules": targets, "base_model_name_or_path": "a/b"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert textgen.run(tables(), output=tmp_path / "run").history


def test_the_layers_of_an_adapter_are_those_of_its_weights(folder, tables, tmp_path, command):
    adapted = textgen.run(tables(lora={"rank": 2}), output=tmp_path / "adapted").path
    place = tmp_path / "adapter"
    done = command("huggingface-export", adapted, place, "--adapter")
    assert done.returncode == 0, done.stderr
    change(place / "adapter_config.json", target_modules=EXPRESSION, exclude_modules=EXPRESSION)
    made = textgen.run(tables(adapter=str(place)), output=tmp_path / "run")
    assert made.history
    for odd in ({"rank_pattern": {EXPRESSION: 2}}, {"layer_replication": [[0, 10**6]]}):
        kept = (place / "adapter_config.json").read_text()
        change(place / "adapter_config.json", **odd)
        with pytest.raises(textgen.PipelineError) as caught:
            textgen.run(tables(adapter=str(place)), output=tmp_path / "odd")
        assert caught.value.argument == "model.adapter"
        (place / "adapter_config.json").write_text(kept)


def test_more_layers_than_weights_are_refused(folder, tables, tmp_path):
    made = textgen.run({**tables(), "observer": []}, output=tmp_path / "run").path
    change(folder / "config.json", n_layer=100)
    for use in (
        lambda: textgen.run(tables(), output=tmp_path / "other"),
        lambda: textgen.load(made, device="cpu"),
    ):
        with pytest.raises(textgen.PipelineError, match="n_layer = 100"):
            use()


@pytest.mark.filterwarnings("ignore:.*was changed since the run was made")
def test_more_layers_than_weights_of_a_run_are_refused(make_pipeline, tmp_path):
    """Its record says the same as its pipeline."""
    pipeline = make_pipeline("gpt2") | {"observer": []}
    pipeline["trainer"] |= {"length": "1 step"}
    made = textgen.run(pipeline, output=tmp_path / "run").path
    tables, record = made / "pipeline.toml", made / "run.json"
    tables.write_text(tables.read_text().replace("n_layer = 2", "n_layer = 100"))
    said = json.loads(record.read_text().replace('"n_layer": 2', '"n_layer": 100'))
    record.write_text(json.dumps(signed(said)))
    with pytest.raises(textgen.PipelineError, match="n_layer = 100"):
        textgen.load(made, device="cpu")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
def test_what_is_no_file_of_the_folder_is_refused(kind, name, folder, tables, tmp_path):
    (folder / name).replace(tmp_path / "elsewhere")
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        target = tmp_path / "elsewhere" if kind == "link" else "/dev/zero"
        (folder / name).symlink_to(target)
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.run(tables(), output=tmp_path / "run")
    assert name in str(caught.value)


def test_a_snapshot_of_the_cache_of_the_hub_is_a_folder(folder, tables, tmp_path):
    """Its files are links to those of the folder blobs."""
    snapshot = tmp_path / "models--a--b/snapshots/0123"
    (tmp_path / "models--a--b/blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in FILES:
        shutil.copy(folder / name, tmp_path / "models--a--b/blobs" / f"sum-of-{name}")
        (snapshot / name).symlink_to(f"../../blobs/sum-of-{name}")
    pipeline = tables()
    for kind in ("model", "tokenizer"):
        pipeline[kind]["path"] = str(snapshot)
    made = textgen.run(pipeline, output=tmp_path / "run")
    plain = textgen.run(tables(), output=tmp_path / "plain")
    ids = np.arange(6)[None]
    scores = [run.generator.model.decoder(1).score(ids) for run in (made, plain)]
    np.testing.assert_array_equal(*scores)
