"""Models and batches that are unlike most: odd rows, parameters that few use, buffers, other types of numbers."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from textgen import TrainingError
from textgen.data import Dataset
from textgen.events import StepDone
from textgen.gradient import GradientModel, GradientOptions, GradientTrainer
from textgen.gradient.computing import Computation
from textgen.protocols import TrainerState, TrainingContext

TOKENS = np.arange(402) * 7 % 5
DATA = Dataset(
    training=TOKENS[:301], validation=TOKENS[301:], vocab_size=5, window_length=4, window_stride=4
)
CONTEXT = TrainingContext(seed=0, device="cpu")


def trainer(make: Any = torch.optim.SGD, **options: Any) -> GradientTrainer:
    return GradientTrainer(
        GradientOptions(**{"length": "12 steps", "batch_size": 8, **options}),
        lambda p: make(p, lr=0.1),
    )


def losses(
    trained: GradientTrainer, model: Any, stop: int | None = None, threads: int | None = None
) -> list[tuple[int, float]]:
    context = attrs.evolve(CONTEXT, threads=threads)
    events = itertools.islice(trained.train(model, DATA, context), stop)
    return [(event.step, float(event.loss)) for event in events if isinstance(event, StepDone)]


class Table(nn.Module, GradientModel):
    """The next token by the last."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.logits = nn.Parameter(torch.randn(5, 5, generator=generator).to(dtype))

    def forward(self, tokens: torch.Tensor, state: Any = None) -> Any:
        return self.logits[tokens], ()


def test_a_trainer_without_a_state_begins_anew() -> None:
    again, model = trainer(), Table()
    first = losses(again, model)
    assert [step for step, _ in losses(again, Table(), stop=5)] == [
        1,
        2,
        3,
        4,
    ]  # one of the events is an evaluation
    assert losses(again, Table()) == first


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_last_batch_has_fewer_rows_than_there_are_workers(rows: int) -> None:
    """Which has the numbers of one worker."""
    size = (len(DATA.training_windows()) - rows) // 3
    found = [
        losses(trainer(batch_size=size, length="8 steps"), Table(), threads=threads)
        for threads in (1, 4)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


class Experts(Table):
    """Another table for rows that begin with a high token."""

    def __init__(self) -> None:
        super().__init__()
        self.high = nn.Parameter(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))

    def forward(self, tokens: torch.Tensor, state: Any = None) -> Any:
        is_high = tokens[:, 0] > 2
        if not is_high.any():
            return self.logits[tokens], ()
        return torch.where(is_high[:, None, None], self.high[tokens], self.logits[tokens]), ()


@pytest.mark.parametrize("order", [[0, 1, 3, 4], [3, 4, 0, 1]])
def test_a_parameter_that_some_workers_rows_use_has_their_gradients(order: list[int]) -> None:
    windows, found = np.array(order)[:, None] + np.zeros((4, 4), np.int64), []
    for threads in (1, 2):
        model = Experts()
        computation = Computation.of(model, windows, attrs.evolve(CONTEXT, threads=threads))
        computation.run(
            lambda computation=computation: computation.gradients(windows, None, (0, 0))
        )
        computation.close()
        found.append([p.grad for p in model.parameters()])
    assert all(
        gradient is not None and gradient.abs().sum() > 0 for gradient in itertools.chain(*found)
    )
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


class Normalised(Table):
    """Counts its steps in a buffer, as batch normalisation does."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, tokens: torch.Tensor, state: Any = None) -> Any:
        return self.norm(self.logits[tokens].transpose(1, 2)).transpose(1, 2), ()


@pytest.mark.parametrize("options", [{"compute": "auto"}, {}])
def test_trials_leave_buffers_as_they_were_and_workers_do_not_share_them(
    options: dict[str, Any],
) -> None:
    model = Normalised()
    first = trainer(length="6 steps", **options)
    assert losses(first, model, stop=4)
    second = trainer(length="6 steps", **options)
    second.load_state(first.state())
    losses(second, model)
    assert model.norm.num_batches_tracked == 6


class Counting(Table):
    """Carries the number of tokens so far, an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(2, 5)

    def forward(self, tokens: torch.Tensor, state: Any = None) -> Any:
        before = torch.zeros(len(tokens), dtype=torch.int64) if state is None else state[0]
        places = before[:, None] + torch.arange(tokens.shape[1])
        return self.logits[tokens] + self.places(places % 2), (before + tokens.shape[1],)


class Halved(Table):
    """Has weights of bfloat16, and carries a state of it."""

    def __init__(self) -> None:
        super().__init__(torch.bfloat16)

    def forward(self, tokens: torch.Tensor, state: Any = None) -> Any:
        carried = torch.zeros(len(tokens), 5, dtype=torch.bfloat16) if state is None else state[0]
        logits = self.logits[tokens]
        assert carried.dtype == logits.dtype
        return logits + carried[:, None], (0.5 * logits[:, -1],)


@pytest.mark.parametrize("kind", [Counting, Halved])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_what_a_model_carries_is_resumed_whatever_its_type(kind: Any, make: Any) -> None:
    made = []
    for stops in ([None], [6, None]):
        torch.manual_seed(0)
        model, found, state = kind(), [], None
        for stop in stops:
            part = trainer(make, order="streams")
            if state is not None:
                part.load_state(state)
            with contextlib.closing(part.train(model, DATA, CONTEXT)) as events:
                found += [
                    (event.step, float(event.loss))
                    for event in itertools.islice(events, stop)
                    if isinstance(event, StepDone)
                ]
                state = part.state()
        made.append(found)
    assert made[0] == made[1]
    assert all(isinstance(array, np.ndarray) for array in state.arrays.values())


def test_a_decoder_of_bfloat16_goes_on_from_its_state() -> None:
    decoder = Halved().decoder(2)
    decoder.extend(np.array([[1, 2], [3, 4]]))
    other = Halved().decoder(2)
    other.write_state(decoder.read_state())
    following = np.array([[0], [1]])
    np.testing.assert_array_equal(decoder.extend(following), other.extend(following))


def test_a_state_that_is_refused_leaves_no_threads() -> None:
    first = trainer(order="streams")
    model = Counting()
    losses(first, model, stop=4)
    state = first.state()
    wrong = TrainerState({**state.arrays, "carried.0": np.zeros((8, 3), np.float32)}, state.values)
    second, before = trainer(order="streams"), threading.active_count()
    second.load_state(wrong)
    with pytest.raises(TrainingError):
        losses(second, model)
    assert threading.active_count() == before


def test_a_gradient_of_zero_is_not_clipped_to_nan() -> None:
    model = Table()
    single = attrs.evolve(DATA, training=DATA.training * 0, validation=DATA.validation[:0])
    with torch.no_grad():
        model.logits[:] = torch.tensor([0.0, -np.inf, -np.inf, -np.inf, -np.inf])
    list(trainer().train(model, single, CONTEXT))
    assert model.logits[:, 0].tolist() == [0.0] * 5
