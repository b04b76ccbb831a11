"""Modules that draw from torch's global generator, as nn.Dropout does: repeatable, resumable, and
nothing leaks.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from networks import Dropping
from small_trainings import VOCAB_SIZE, run_in_parts, train


def dropping(context, p=0.3):
    return Dropping(context.vocab_size, context.seed, p)


undropping = functools.partial(dropping, p=0.0)


def weights(model=dropping, **more):
    """The checksum of those that a training gives, which might share out the rows of a batch."""
    return train(model, **{"threads": 2, **more}).generator.model_id


def test_runs_are_equal_whatever_the_global_generator_is_and_leave_it_alone():
    torch.manual_seed(1)
    first = weights()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert weights() == first
    assert torch.equal(torch.get_rng_state(), before)
    assert first not in (weights(seed=3), weights(undropping))


def test_an_interrupted_run_goes_on_exactly(tmp_path):
    run = functools.partial(train, dropping, threads=2)
    resumed = run_in_parts(run, tmp_path / "run", [3])
    assert (resumed.outcome, resumed.generator.model_id) == ("resumed", weights())


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
