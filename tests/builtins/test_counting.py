"""How much of a text the trainer `count` counts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted import CONTEXT, TEXT, pipeline

from textgen import Engine, load
from textgen.data import Dataset
from textgen_builtins.models.ngram import counting
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel


def counted(tokens: Any, vocab_size: int, max_tokens: int | None = None) -> NgramModel:
    """A model of order 2."""
    model, nothing = NgramModel(2, vocab_size), np.empty(0, np.int64)
    sizes = {"vocab_size": vocab_size, "window_length": 1, "window_stride": 1}
    data = Dataset(training=np.asarray(tokens), validation=nothing, **sizes)
    for _ in CountTrainer(max_tokens).train(model, data, CONTEXT):
        pass
    return model


def test_a_sample_is_counted_from_the_beginning_to_the_end_of_the_text(tmp_path: Path) -> None:
    trainer = {"type": "count", "max_tokens": 3_200}
    run = Engine().run(
        pipeline(tmp_path, {"type": "ngram", "order": 2}, trainer),
        output=tmp_path / "run",
    )
    tokenizer, training = run.generator.tokenizer, TEXT[: len(TEXT) - len(TEXT) // 10]
    ids = np.asarray(tokenizer.encode(training))
    length, last = 3_200 // 64, len(ids) - 3_200 // 64
    sample = np.concatenate([ids[i * last // 63 : i * last // 63 + length] for i in range(64)])
    expected = counted(sample, tokenizer.vocab_size).trie
    assert load(run.path).generate("The ", max_new_tokens=5).text
    from safetensors.numpy import load_file

    counts = load_file(run.path / "model.safetensors")["counts"]
    assert sorted(counts.tolist()) == sorted(expected.counts.tolist())


def test_of_a_text_beyond_memory_a_part_is_counted_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "_MOST_TOKENS", 640)
    tokens = np.random.default_rng(0).integers(0, 5, 6_400)
    with pytest.warns(UserWarning, match="640 of the 6,400 tokens .* max_tokens of the trainer"):
        model = counted(tokens, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = counted(tokens, 5, 640)
        counted(tokens, 5, 10_000)
    assert told.tensors()["counts"].tolist() == model.tensors()["counts"].tolist()
