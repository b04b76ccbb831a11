"""A GPT-2 and a Llama of a few thousand weights, each trained once for all tests.

Nothing may reach a network.
"""

import os
import socket
import subprocess
import sys

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
    environment = {
        key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_PROGRESS_BARS"
    }

    def call(*arguments):
        line = [sys.executable, "-m", "textgen", *map(str, arguments)]
        return subprocess.run(
            line, capture_output=True, text=True, encoding="utf-8", env=environment
        )

    return call
