"""A GPT-2 and a Llama of a few thousand weights, each trained once for all tests.

Nothing may reach a network.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported, which reads it once
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # threads cost these small models more than they bring

TEXT = (
    "The café served naïve travellers tea 🍵, and they said: «how fine»! It's "
    "1895.\nThe time machine stood still; "
)
CONTEXT = 24
PATIENCE = 600  # seconds for a check of a contract, whatever else the machine does
CONFIGS = {
    "gpt2": {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 2},
    "llama": {
        "max_position_embeddings": CONTEXT,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
ABOUT = {
    "general__name": "Small",
    "general__organization": "Somebody",
    "general__license": "apache-2.0",
    "general__languages": ["en", "fr"],
    "tokenizer__chat_template": "{{ messages }}",
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(TEXT * 60, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_pipeline(corpus):
    """A pipeline of one architecture, with changes to its model table."""

    def make(architecture="gpt2", **model):
        table = {"architecture": architecture, "config": CONFIGS.get(architecture, {})} | model
        return {
            "seed": 1,
            "device": "cpu",
            "corpus": {"type": "file", "path": str(corpus)},
            "tokenizer": {"type": "bpe", "vocab_size": 300},
            "data": {"window_length": 16},
            "model": {"type": "huggingface", **{k: v for k, v in table.items() if v is not None}},
            "trainer": {
                "type": "adamw",
                "length": "2 epochs",
                "batch_size": 16,
                "learning_rate": 1e-2,
            },
            "sampler": [{"type": "greedy"}],
            "observer": [{"type": "metrics"}, {"type": "huggingface-files"}],
            "generate": {"max_new_tokens": 4},
        }

    return make


@pytest.fixture(scope="session", params=["gpt2", "llama"])
def run(request, tmp_path_factory, make_pipeline):
    """A finished textgen.Run of each architecture."""
    import textgen

    return textgen.run(
        make_pipeline(request.param), output=tmp_path_factory.mktemp("runs") / request.param
    )


@pytest.fixture(scope="session")
def command():
    """Runs the `textgen` command, with the progress bars of transformers as a user has them."""

    def call(*arguments):
        environment = {
            key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_PROGRESS_BARS"
        }
        line = [sys.executable, "-m", "textgen", *map(str, arguments)]
        return subprocess.run(
            line, capture_output=True, text=True, encoding="utf-8", env=environment
        )

    return call


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A Llama with a tokenizer of words in a GGUF file, and as a module."""
    from test_tokenizers import llama_2

    vocabulary = llama_2().get_vocab()
    model = new_llama(len(vocabulary)).bfloat16().float()
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(path, model, sorted(vocabulary, key=lambda token: vocabulary[token]))
    return path, model


@pytest.fixture(scope="session")
def gguf_base(tmp_path_factory):
    """A GGUF file with weights of 4 bits."""
    from gguf import GGMLQuantizationType
    from test_tokenizers import llama_2

    vocabulary = llama_2().get_vocab()
    path = tmp_path_factory.mktemp("base") / "small-4-bits.gguf"
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    write_gguf(path, new_llama(len(tokens)), tokens, GGMLQuantizationType.Q4_1, **ABOUT)
    return path


@pytest.fixture(scope="session")
def tune(make_pipeline, tmp_path_factory):
    """Trains a model for a few steps."""
    import textgen

    def train(path, rate=0.05, tables=(), **model):
        pipeline = make_pipeline(None, path=str(path), config=None, **model)
        pipeline["tokenizer"] = {"type": "huggingface-tokenizer", "path": str(path)}
        pipeline["trainer"] |= {"length": "3 steps", "learning_rate": rate}
        pipeline |= {"observer": [], **dict(tables)}
        return textgen.run(pipeline, output=tmp_path_factory.mktemp("tuned") / "my-novel").path

    return train


@pytest.fixture(scope="session")
def tuned(gguf_base, tune):
    """A run with an adapter to some layers, on top of another."""
    first = tune(gguf_base, lora={"rank": 2, "targets": ["q_proj", "k_proj", "down_proj"]})
    before = first.with_name("before")
    assert export(first, before, "--adapter").exit_code == 0
    targets = ["q_proj", "k_proj", "down_proj"]
    return tune(gguf_base, adapter=str(before), lora={"rank": 2, "alpha": 8, "targets": targets})


def export(*arguments):
    """The command's result; its errors are in `exception`."""
    from click.testing import CliRunner

    import textgen
    from textgen_huggingface.command import make_command

    context = textgen.BuildContext(folder=Path(), plugins=textgen.PluginSet.discover())
    return CliRunner().invoke(make_command(context), [*map(str, arguments)])


def new_llama(vocab_size):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("llama", vocab_size=vocab_size, **CONFIGS["llama"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


def write_gguf(path, model, tokens, encoding=None, **metadata):
    """Write a Llama as llama.cpp's converter does, its matrices in an encoding if one is given."""
    import gguf

    writer, config = gguf.GGUFWriter(path, "llama"), model.config
    for key, value in metadata.items():
        write = writer.add_array if isinstance(value, list) else writer.add_string
        write(key.replace("__", "."), value)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    kinds = {"<unk>": gguf.TokenType.UNKNOWN, "<s>": gguf.TokenType.CONTROL}
    kinds |= {"</s>": gguf.TokenType.CONTROL}
    kinds |= {token: gguf.TokenType.BYTE for token in tokens if token.startswith("<0x")}
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        for key, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            array = interleaved(array, getattr(config, heads)) if key in name else array
        chosen = encoding if array.ndim == 2 and array.shape[1] % 32 == 0 else None
        made = array if chosen is None else gguf.quants.quantize(array, chosen)
        writer.add_tensor(names.get_name(name, (".weight",)), made, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight, heads):
    """A projection in the order in which GGUF rotates positions."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
