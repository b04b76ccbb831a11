"""What authors of trainers and models by gradient get wrong is said, in their words, before the
first step.
"""

import warnings

import pytest
import small_trainings
import torch
from networks import Recurrent
from small_trainings import VOCAB_SIZE

import textgen
from textgen.gradient import GradientModel, GradientOptions, GradientTrainer

OPTIONS = GradientOptions(length="2 steps", batch_size=3)


def train(make=lambda weights: torch.optim.SGD(weights, lr=0.1), kind=Recurrent):
    """Train two steps."""
    return small_trainings.train(kind(VOCAB_SIZE), trainer=GradientTrainer(OPTIONS, make))


def test_weights_that_no_optimizer_has_are_named_once():
    with pytest.warns(UserWarning) as caught:
        run = train(lambda weights: torch.optim.SGD(weights.of_role("matrix"), lr=0.1))
    assert run.generator.record["step"] == 2
    (warning,) = caught
    assert str(warning.message).endswith(
        "stay as they are: embedding.weight, cell.bias_ih_l0, cell.bias_hh_l0, head.bias"
    )

    class Frozen(Recurrent):
        def __init__(self, vocab_size):
            super().__init__(vocab_size)
            self.embedding.requires_grad_(False)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train()
        train(kind=Frozen)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda weights: torch.optim.SGD(weights.of_role("matrices"), lr=0.1),
            "embedding, head, matrix, vector",
        ),
        (lambda weights: None, "None"),
    ],
    ids=["role", "none"],
)
def test_what_makes_no_optimizer_is_an_error(make, said):
    with pytest.raises(textgen.ContractError, match=said):
        train(make)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda logits, state: (logits, (state[0].transpose(0, 1),)),
            r"state\[0\] of shape \(1, 5, 7\)",
        ),
        (
            lambda logits, state: (logits, state[0]),
            "state of type Tensor",
        ),
        (
            lambda logits, state: (logits, None),
            "state of type NoneType",
        ),
        (
            lambda logits, state: logits,
            "forward gave Tensor",
        ),
    ],
    ids=["axis", "tensor", "none", "logits"],
)
def test_a_state_that_generation_cannot_use_is_blamed_before_a_step(change, said):
    steps = []

    class Odd(Recurrent):
        def forward(self, tokens, state=None):
            steps.append(self.training)
            return change(*super().forward(tokens, state))

    with pytest.raises(textgen.ContractError, match=said):
        train(kind=Odd)
    assert steps == [False]


def test_a_model_that_generates_otherwise_than_it_trained_is_named():
    class Right(Recurrent, GradientModel):
        pass

    class Forgetting(Right):
        """Generates from logits of another scale."""

        def decoder(self, batch_size):
            with torch.no_grad():
                self.head.weight.mul_(-3)
            return super().decoder(batch_size)

    def trained(kind):
        corpus = "abcd" * 1300
        data = {"validation": 0.2, "window_length": 8}
        trainer = {"type": "adamw", "length": "3 epochs", "learning_rate": 0.05}
        return textgen.train(corpus=corpus, model=kind(5), trainer=trainer, data=data)

    with pytest.warns(textgen.PluginWarning):
        trained(Forgetting)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(Right)
