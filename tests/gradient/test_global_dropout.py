"""Modules that draw from torch's global generator, as nn.Dropout does: repeatable, resumable, and
nothing leaks.
"""

import functools
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from networks import Dropping
from small_trainings import VOCAB_SIZE, run_in_parts, train


def dropping(context, p=0.3):
    return Dropping(context.vocab_size, context.seed, p)


undropping = functools.partial(dropping, p=0.0)


def weights(model=dropping, **more):
    """The checksum of those that a training gives."""
    return train(model, **more).generator.model_id


def test_runs_are_equal_whatever_the_global_generator_is_and_leave_it_alone():
    torch.manual_seed(1)
    first = weights()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert weights() == first
    assert torch.equal(torch.get_rng_state(), before)
    assert first not in (weights(seed=3), weights(undropping))


def test_an_interrupted_run_goes_on_exactly(tmp_path):
    resumed = run_in_parts(functools.partial(train, dropping), tmp_path / "run", [3])
    assert (resumed.outcome, resumed.generator.model_id) == ("resumed", weights())


def test_such_a_model_computes_alone_and_the_log_says_so(caplog):
    caplog.set_level(logging.INFO, "textgen")
    train(undropping, threads=2)
    assert "the model computes" not in caplog.text
    train(dropping, threads=2)
    assert "the model computes the rows of a batch together" in caplog.text


def test_trainings_in_threads_do_not_take_each_others_draws():
    modules = [Dropping(VOCAB_SIZE, 0) for _ in range(3)]  # made here: that seeds, too
    alone = weights(modules[0])
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(weights, modules[1:])) == [alone, alone]


@pytest.mark.gpu
def test_on_cuda_too():
    first = weights(device="cuda")
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    assert weights(device="cuda") == first
    assert torch.equal(torch.cuda.get_rng_state(), before)
