"""Random operations of torch under a generator that is handed in."""

import pytest
import torch
from torch import nn

from textgen_huggingface.own_generator import OwnGenerator


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.empty(5).normal_(),
        lambda: torch.rand(5),
        lambda: torch.randn(5),
        lambda: torch.randint(3, 1000, (5,)),
        lambda: torch.randperm(50),
        lambda: torch.rand_like(torch.ones(5)),
        lambda: nn.functional.dropout(torch.ones(50)),
        lambda: nn.Linear(3, 3).weight.detach(),
        lambda: torch.native_dropout(torch.ones(50), 0.5, True)[0],
    ],
)
def test_draws_depend_on_the_given_generator_alone(draw):
    def drawn(seed):
        with OwnGenerator(torch.Generator().manual_seed(seed)):
            return draw()

    before = torch.get_rng_state()
    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_dropout_of_a_gpu_has_its_gradient():
    x = torch.ones(1000, requires_grad=True)
    with OwnGenerator(torch.Generator().manual_seed(0)):
        y, _ = torch.native_dropout(x, 0.25, True)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())  # the kept ones by 1 / 0.75, the others by 0
    assert 0.2 < float((y == 0).float().mean()) < 0.3
