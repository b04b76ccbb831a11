"""What authors of trainers and models by gradient get wrong is said, in their words, before the
first step.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import Recurrent

import textgen
from textgen import BuildContext
from textgen.events import StepDone
from textgen.gradient import GradientOptions, GradientTrainer, Parameters, constant

OPTIONS = GradientOptions(length="2 steps", batch_size=3)


def network(context: BuildContext) -> Any:
    with torch.random.fork_rng(devices=[]):
        return Recurrent(context.vocab_size)


def train(
    make: Any = lambda weights: torch.optim.SGD(weights, lr=0.1),
    model: Any = network,
    schedule: Any = constant,
    output: Path | None = None,
) -> list[StepDone]:
    """Train two steps; return what there is of them."""
    seen: list[StepDone] = []

    class Watching:
        def observe(self, event: Any) -> None:
            if isinstance(event, StepDone):
                seen.append(event)

    textgen.train(
        corpus="the clock struck nine and no one came. " * 9,
        tokenizer="char",
        model=model,
        trainer=GradientTrainer(OPTIONS, make, schedule),
        data={"window_length": 12},
        device="cpu",
        observers=[Watching()],
        output=output,
    )
    return seen


def test_weights_that_no_optimizer_has_are_named_once() -> None:
    with pytest.warns(UserWarning, match="no optimizer has these parameters") as caught:
        assert len(train(lambda weights: torch.optim.SGD(weights.of_role("matrix"), lr=0.1))) == 2
    (warning,) = caught
    assert str(warning.message).endswith(
        "stay as they are: embedding.weight, cell.bias_ih_l0, cell.bias_hh_l0, head.bias"
    )

    def frozen(context: BuildContext) -> Any:
        made = network(context)
        made.embedding.requires_grad_(False)
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train()
        train(model=frozen)


def test_a_role_there_is_not_is_an_error() -> None:
    with pytest.raises(
        textgen.ContractError,
        match="role 'matrices'; the roles are embedding, head, matrix, vector",
    ):
        train(lambda weights: torch.optim.SGD(weights.of_role("matrices"), lr=0.1))
    assert Parameters([], []).of_role("head") == []


def test_what_is_no_optimizer_is_an_error() -> None:
    with pytest.raises(
        textgen.ContractError, match="make_optimizer gave None, and must give torch"
    ):
        train(lambda weights: None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda logits, state: (logits, (state[0].transpose(0, 1),)),
            r"forward gave state\[0\] of shape \(1, 5, 7\) for a batch of 5, and must give",
        ),
        (
            lambda logits, state: (logits, state[0]),
            r"forward gave a state of type Tensor, and must give a tuple of tensors",
        ),
        (
            lambda logits, state: (logits, None),
            r"forward gave a state of type NoneType, and must give a tuple",
        ),
        (
            lambda logits, state: logits,
            r"forward gave Tensor, and must give logits and the state after them",
        ),
    ],
    ids=["axis", "tensor", "none", "logits"],
)
def test_a_state_that_generation_cannot_use_is_blamed_before_a_step(change: Any, said: str) -> None:
    steps: list[int] = []

    class Odd(Recurrent):
        def forward(self, tokens: torch.Tensor, state: Any = None) -> Any:
            steps.append(self.training)
            return change(*super().forward(tokens, state))

    def build(context: BuildContext) -> Any:
        with torch.random.fork_rng(devices=[]):
            return Odd(context.vocab_size)

    with pytest.raises(textgen.ContractError, match=said):
        train(model=build)
    assert steps == [False]
