"""Models and batches that are unlike most: odd rows, parameters that few use, buffers, other types
of numbers.
"""

import contextlib
import functools
import itertools

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from textgen import UsageError
from textgen.data import Dataset
from textgen.events import StepDone
from textgen.gradient import GradientModel, GradientOptions, GradientTrainer, NextToken
from textgen.gradient.data_parallel import DataParallelStep
from textgen.processes import Processes
from textgen.protocols import TrainingContext

TOKENS = np.arange(402) * 7 % 5
DATA = Dataset(
    training=TOKENS[:301], validation=TOKENS[301:], vocab_size=5, window_length=4, window_stride=4
)
CONTEXT = TrainingContext(seed=0, device="cpu")


def trainer(make=torch.optim.SGD, **options):
    return GradientTrainer(
        GradientOptions(**{"length": "12 steps", "batch_size": 8, **options}),
        lambda p: make(p, lr=0.1),
    )


def losses(trained, model, stop=None, threads=None):
    context = attrs.evolve(CONTEXT, threads=threads)
    events = itertools.islice(trained.train(model, DATA, context), stop)
    return [(event.step, float(event.loss)) for event in events if isinstance(event, StepDone)]


class Table(nn.Module, GradientModel):
    """The next token by the last."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.logits = nn.Parameter(torch.randn(5, 5, generator=generator).to(dtype))

    def forward(self, tokens, state=None):
        return self.logits[tokens], ()


def test_a_last_batch_has_fewer_rows_than_there_are_workers():
    """Which has the numbers of one worker."""
    size = (len(DATA.training_windows()) - 1) // 3
    found = [
        losses(trainer(batch_size=size, length="8 steps"), Table(), threads=threads)
        for threads in (1, 4)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


class Experts(Table):
    """Another table for rows that begin with a high token."""

    def __init__(self):
        super().__init__()
        self.high = nn.Parameter(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))

    def forward(self, tokens, state=None):
        is_high = tokens[:, 0] > 2
        if not is_high.any():
            return self.logits[tokens], ()
        return torch.where(is_high[:, None, None], self.high[tokens], self.logits[tokens]), ()


def test_a_parameter_that_some_workers_rows_use_has_their_gradients():
    windows, found = np.array([0, 1, 3, 4])[:, None] + np.zeros((4, 4), np.int64), []
    for threads in (1, 2):
        model = Experts()
        context = attrs.evolve(CONTEXT, threads=threads)
        parallel_step = DataParallelStep.of(model, (windows,), context, NextToken())
        with contextlib.closing(parallel_step):
            parallel_step.run(functools.partial(parallel_step.gradients, (windows,), None, (0, 0)))
        found.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(found[0], found[1])
    assert all(gradient.abs().sum() > 0 for gradient in found[0])


class Normalised(Table):
    """Counts its steps in a buffer, as batch normalisation does."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, tokens, state=None):
        return self.norm(self.logits[tokens].transpose(1, 2)).transpose(1, 2), ()


class Alone(Table):
    """Needs all rows of a batch."""

    distributed = False


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (Alone, "several processes"),
        (Normalised, "buffers"),
    ],
)
def test_what_several_processes_cannot_train_is_refused(model, cause):
    context = attrs.evolve(CONTEXT, processes=Processes(0, 2))
    with pytest.raises(UsageError, match=cause):
        next(trainer().train(model(), DATA, context))


def test_trials_leave_buffers_as_they_were_and_workers_do_not_share_them():
    model = Normalised()
    first = trainer(length="6 steps", precision="auto")
    assert losses(first, model, stop=4)
    second = trainer(length="6 steps", precision="auto")
    second.load_state(first.state())
    losses(second, model)
    assert model.norm.num_batches_tracked == 6


class Counting(Table):
    """Carries the number of tokens so far, an integer."""

    def forward(self, tokens, state=None):
        before = torch.zeros(len(tokens), dtype=torch.int64) if state is None else state[0]
        places = before[:, None] + torch.arange(tokens.shape[1])
        return self.logits[(tokens + places) % 5], (before + tokens.shape[1],)


class Halved(Table):
    """Has weights of bfloat16, and carries a state of it."""

    def __init__(self):
        super().__init__(torch.bfloat16)

    def forward(self, tokens, state=None):
        carried = torch.zeros(len(tokens), 5, dtype=torch.bfloat16) if state is None else state[0]
        logits = self.logits[tokens]
        assert carried.dtype == logits.dtype
        return logits + carried[:, None], (0.5 * logits[:, -1],)


@pytest.mark.parametrize("kind", [Counting, Halved])
def test_what_a_model_carries_is_resumed_whatever_its_type(kind):
    whole, first, second = (trainer(torch.optim.AdamW, order="streams") for _ in range(3))
    model = kind()
    begun = losses(first, model, stop=6)
    second.load_state(first.state())
    assert begun + losses(second, model) == losses(whole, kind())


def test_a_decoder_of_bfloat16_goes_on_from_its_state():
    decoder = Halved().decoder(2)
    decoder.extend(np.array([[1, 2], [3, 4]]))
    other = Halved().decoder(2)
    other.write_state(decoder.read_state())
    following = np.array([[0], [1]])
    np.testing.assert_array_equal(decoder.extend(following), other.extend(following))


def test_a_gradient_of_zero_is_not_clipped_to_nan():
    model = Table()
    single = attrs.evolve(DATA, training=DATA.training * 0, validation=DATA.validation[:0])
    with torch.no_grad():
        model.logits[:] = torch.tensor([0.0, -np.inf, -np.inf, -np.inf, -np.inf])
    list(trainer().train(model, single, CONTEXT))
    assert model.logits[:, 0].tolist() == [0.0] * 5
