"""Rows of the torch decoder come and go on its device, without a way through the CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
from components import context, letters, make

from textgen import load

VOCABULARY = letters(19)
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def decoder(module: Any, size: int) -> Any:
    from textgen_builtins.models.rnn.torch_model import TorchDecoder

    return TorchDecoder(module, size)


def ids(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, len(VOCABULARY), shape)


def assert_close(given: Any, expected: Any) -> None:
    np.testing.assert_allclose(given.cpu().numpy(), expected.cpu().numpy(), atol=1e-5)


@DEVICES
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_rows_taken_and_joined_go_on_as_they_were(cell: str, device: str) -> None:
    options = {"cell": cell, "layers": 2, "hidden_size": 16}
    module: Any = make(
        "model",
        "rnn",
        context(vocabulary=VOCABULARY, training=True, seed=3, device=device),
        **options,
    )
    first, other, whole = decoder(module, 3), decoder(module, 1), decoder(module, 3)
    for place in range(6):  # single steps, so that a GPU has captured its graph
        first.extend(ids(3, 6)[:, place : place + 1])
    whole.extend(ids(3, 6))
    other.extend(ids(1, 9, seed=1))
    taken = first.take([2, 0, 2])
    single = first.take([1])
    for place in range(6):
        feed = ids(3, 6, seed=2)[:, place : place + 1]
        expected = whole.extend(feed).clone()
        assert_close(taken.extend(feed[[2, 0, 2]]), expected[[2, 0, 2]])
    alone = single.extend(ids(1, 4, seed=5)).clone()
    single.join(other)  # the first decoder has not moved since
    first.join(single)
    assert first.batch_size == 5
    feed = np.concatenate([ids(3, 6, seed=2), ids(2, 6, seed=4)])
    assert_close(first.extend(feed[:, :0])[3:4], alone)
    assert_close(first.extend(feed)[:3], expected)
    again = first.take([4, 1]).continue_greedily(feed[[4, 1], 0], 9, [0])
    assert np.array_equal(again, first.continue_greedily(feed[:, 0], 9, [0])[[4, 1]])


def test_a_batch_that_loses_rows_reads_no_state(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load(finished_run)
    module = generator.module()
    watched = attrs.evolve(
        generator, model=SimpleNamespace(decoder=lambda size: decoder(module, size))
    )

    def refuse(*_: Any) -> None:
        raise AssertionError("the state went through the CPU")

    monkeypatch.setattr(type(decoder(module, 1)), "read_state", refuse)
    monkeypatch.setattr(type(decoder(module, 1)), "write_state", refuse)
    prompts = ["the time", "a", "the clock of the hall", "he"]
    for options in ({"temperature": 0}, {"temperature": 0.8, "top_k": 5}):
        given = list(
            watched.generate_many(prompts, batch_size=3, stop="e", max_new_tokens=30, **options)
        )
        expected = list(generator.generate_many(prompts, stop="e", max_new_tokens=30, **options))
        assert [text.tokens for text in given] == [text.tokens for text in expected]


@pytest.mark.gpu
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_recurrent_layers_are_not_computed_in_float16(cell: str) -> None:
    """Which torch's autocast would take for those of cuDNN, whatever precision it was asked for."""
    import torch

    options = {"cell": cell, "layers": 2, "hidden_size": 16, "dropout": 0.1}
    module: Any = make(
        "model",
        "rnn",
        context(vocabulary=VOCABULARY, training=True, seed=3, device="cuda"),
        **options,
    )
    with torch.autocast("cuda", torch.bfloat16):
        logits, state = module(torch.from_numpy(ids(3, 6)).cuda())
        logits, state = module(torch.from_numpy(ids(3, 6)).cuda(), state)
    assert {part.dtype for part in state} == {torch.float32}
    logits.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
