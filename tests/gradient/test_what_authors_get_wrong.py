"""What authors of trainers and models by gradient get wrong is said, in their words, before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
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


class Rateless(torch.optim.SGD):
    """Has another name for its learning rate."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights, lr=0.1)
        self.param_groups[0]["rate"] = self.param_groups[0].pop("lr")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            Rateless,
            r"Rateless has no 'lr' in param_groups\[0\], and must have one: the schedule writes",
        ),
        (
            lambda weights: None,
            r"make_optimizer gave None, and must give a torch\.optim\.Optimizer, or several",
        ),
    ],
)
def test_what_is_no_optimizer_is_an_error(make: Callable[..., Any], said: str) -> None:
    with pytest.raises(textgen.ContractError, match=said):
        train(make)


def test_a_schedule_that_gives_no_number_is_an_error() -> None:
    with pytest.raises(
        textgen.ContractError,
        match="the schedule gave 'fast' for step 1 of 2, and must give a number",
    ):
        train(schedule=lambda step, steps: "fast")


class Hoarding(torch.optim.SGD):
    """Keeps what cannot be saved."""

    def step(self, closure: Any = None) -> Any:
        self.state[self.param_groups[0]["params"][0]]["seen"] = {1, 2}
        return super().step(closure)


def test_an_optimizer_that_keeps_what_cannot_be_saved_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(
        textgen.ContractError,
        match=r"trainer 'gradient-trainer' .*Hoarding keeps 'seen', a set; tensors",
    ):
        train(lambda weights: Hoarding(weights, lr=0.1), output=tmp_path / "run")


@attrs.frozen
class OwnConfig:
    """Has no options of the training loop."""

    learning_rate: float = 0.1


def test_options_of_another_class_are_an_error() -> None:
    with pytest.raises(
        TypeError,
        match=r"type OwnConfig are not .* a subclass of textgen\.gradient\.GradientOptions",
    ):
        GradientTrainer(OwnConfig(), torch.optim.SGD)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda logits, state: (logits, (state[0].transpose(0, 1),)),
            r"forward gave state\[0\] of shape \(1, 5, 7\) for a batch of 5, and must give a tensor with the batch",
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
