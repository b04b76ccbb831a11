"""Modules that draw from torch's global generator, as nn.Dropout does: repeatable, resumable, and
nothing leaks.
"""

from __future__ import annotations

import functools
import itertools
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import network_plugin
import pytest
import torch
from networks import Dropping

import textgen
from textgen import BuildContext, Component
from textgen.testing import check_model

TEXT = "the clock struck nine and no one came. " * 30


def dropping(context: BuildContext, p: float = 0.3) -> Dropping:
    return Dropping(context.vocab_size, context.seed, p)


def train(model: Any = dropping, device: str = "cpu", **more: Any) -> textgen.Run:
    trainer = {
        "type": "adamw",
        "length": "8 steps",
        "batch_size": 6,
        "order": "streams",
        **more.pop("trainer", {}),
    }
    return textgen.train(
        corpus=TEXT,
        tokenizer="char",
        model=model,
        trainer=trainer,
        data={"window_length": 12},
        device=device,
        **more,
    )


def weights(run: textgen.Run) -> list[bytes]:
    return [array.tobytes() for _, array in sorted(run.generator.model.tensors().items())]


def test_runs_are_equal_whatever_the_global_generator_is_and_leave_it_alone() -> None:
    torch.manual_seed(1)
    first = train()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert weights(train()) == weights(first)
    assert torch.equal(torch.get_rng_state(), before)
    assert weights(train(seed=3)) != weights(first)
    assert weights(train(functools.partial(dropping, p=0.0))) != weights(first)


def test_an_interrupted_run_goes_on_exactly(tmp_path: Path) -> None:
    count = itertools.count(1)
    with pytest.raises(textgen.Interrupted):
        train(output=tmp_path / "run", cancelled=lambda: next(count) > 3)
    torch.rand(5)
    resumed = train(output=tmp_path / "run")
    assert resumed.outcome == "resumed"
    assert weights(resumed) == weights(train())


def test_such_a_model_computes_alone_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "textgen")
    train(threads=2)
    assert "the model computes the rows of a batch together" in caplog.text
    caplog.clear()
    train(functools.partial(dropping, p=0.0), threads=2)
    assert "the model computes" not in caplog.text


def test_trainings_in_threads_do_not_take_each_others_draws() -> None:
    modules = [Dropping(len(set(TEXT)) + 1, 0) for _ in range(3)]  # made here: that seeds, too
    alone = weights(train(modules[0]))
    with ThreadPoolExecutor(2) as pool:
        assert [weights(run) for run in pool.map(train, modules[1:])] == [alone, alone]


@pytest.mark.slow
def test_the_contract_allows_it() -> None:
    check_model(Component("dropping", textgen.NoOptions, network_plugin.build_dropping))


@pytest.mark.gpu
def test_on_cuda_too() -> None:
    first = train(device="cuda")
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    assert weights(train(device="cuda")) == weights(first)
    assert torch.equal(torch.cuda.get_rng_state(), before)
