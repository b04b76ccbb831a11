"""The mixture of two models: a distribution, better than either, the same in steps, batches and
after a resume.
"""

import attrs
import numpy as np
import pytest
from components import context
from counted import CONTEXT, HELD_OUT, TEXT, dataset, pipeline
from hypothesis import given
from hypothesis import strategies as st

from textgen import Engine, UsageError
from textgen.data import Dataset
from textgen.events import Evaluated, Evaluation, StepDone
from textgen.protocols import TrainerState
from textgen.threads import torch_threads
from textgen_builtins.models.gate import Gate, fit
from textgen_builtins.models.loss import log_softmax, mean_loss
from textgen_builtins.models.mixture.model import expert_logs

RNN = {"type": "rnn", "hidden_size": 32, "cell": "gru"}
ADAMW = {
    "type": "adamw",
    "length": "3 epochs",
    "batch_size": 8,
    "order": "streams",
    "learning_rate": 0.01,
}
NGRAM = {"type": "ngram", "order": 4}
MODEL = {"type": "mixture", "first": RNN, "second": NGRAM}
TRAINER = {"type": "mixture", "first": ADAMW}


@pytest.fixture(scope="module")
def mixture_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    return Engine().run(pipeline(folder, MODEL, TRAINER), output=folder / "run")


def log_probabilities(seed, *shape):
    """Rows of experts, some of them sure and some with impossible tokens."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=shape) * rng.choice([0.1, 1, 10, 100], size=(*shape[:-1], 1))
    logits[rng.random(shape) < 0.1] = -np.inf
    logits[..., 0] = 0.0
    return (logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)).astype(np.float32)


@given(
    experts=st.integers(1, 5),
    size=st.integers(2, 40),
    rows=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_what_a_gate_gives_is_finite(experts, size, rows, seed):
    rng = np.random.default_rng(seed)
    gate = Gate(*(rng.normal(size=n).astype(np.float32) for n in (experts, (experts**2, experts))))
    logits = gate.mix(log_probabilities(seed, rows, experts, size))
    assert logits.shape == (rows, size)
    assert np.isfinite(logits).all()


def loss(gate, logs, targets):
    made = log_softmax(gate.mix(logs.copy()))
    return -float(made[np.arange(len(made)), targets].mean(dtype=float))


@pytest.fixture(scope="module")
def sure_by_turns():
    """(2000, 2, 6) log probabilities and what came: at each token one expert knows it and the other
    says nothing.
    """
    rng = np.random.default_rng(0)
    targets, knows = rng.integers(0, 6, 2000), rng.integers(0, 2, 2000)
    probabilities = np.full((2000, 2, 6), 1 / 6)
    seen = np.where(rng.random(2000) < 0.9, targets, rng.integers(0, 6, 2000))
    probabilities[np.arange(2000), knows] = 0.02
    probabilities[np.arange(2000), knows, seen] = 0.9
    return np.log(probabilities).astype(np.float32), targets


def test_an_expert_that_is_sure_of_the_wrong_token_does_not_decide_alone():
    logs = np.array([[[0, -100], [-6, np.log1p(-np.exp(-6))]]], np.float32)
    assert loss(Gate.fixed([0.5, 0.5]), logs, np.array([1])) < 6


def test_a_fitted_gate_is_where_the_loss_is_least(sure_by_turns):
    logs, targets = sure_by_turns
    gate = fit(logs.copy(), targets, [0.5, 0.5])
    least = loss(gate, logs, targets)
    assert least < loss(Gate.fixed([0.5, 0.5]), logs, targets) - 0.05
    for i in range(2):
        for change in (-0.05, 0.05):
            bias = gate.bias.copy()
            bias[i] += change
            assert loss(attrs.evolve(gate, bias=bias), logs, targets) > least


def test_predicts_held_out_text_better_than_either(mixture_run):
    generator, model = attrs.evolve(mixture_run.generator, record={}), mixture_run.generator.model
    mixed, tokens = generator.score(HELD_OUT).loss, generator.tokenizer.encode(HELD_OUT)
    for part in (model.first, model.second):
        assert mixed < mean_loss(part, tokens, len(set(TEXT)) + 1) - 0.01
    assert mixture_run.best_loss == pytest.approx(mixed, rel=1e-6)
    assert model.gate.slopes.any()  # and is fitted alone
    assert not model.second.gate.slopes.any()


@pytest.mark.slow
def test_a_run_has_the_mean_weights_of_its_first_part(tmp_path):
    """And its loss and its gate are those of the mean; training goes on from the weights."""
    averaging = {**ADAMW, "average_share": 0.5, "length": "4 steps", "decay_share": 0.0}
    averaging["evaluate_every"] = 2

    def followed(share):
        """The run, and the weights of the first part that it trained, by the step."""
        weights = {}

        def follow(event):
            if isinstance(event, Evaluation):
                own = event.model.first.tensors()
                weights[event.step] = {name: array.copy() for name, array in own.items()}

        trainer = {"type": "mixture", "first": {**averaging, "average_share": share}}
        tables = pipeline(tmp_path, MODEL, trainer)
        return Engine().run(tables, output=tmp_path / str(share), observers=[follow]), weights

    run, weights = followed(0.5)
    alone = attrs.evolve(run.generator, record={})  # with nothing before the text
    assert run.best_loss == pytest.approx(alone.score(HELD_OUT).loss, rel=1e-6)
    made = run.generator.model.first.tensors()
    last = weights[run.generator.record["best_step"]]
    assert not all(np.allclose(made[name], last[name], atol=1e-5) for name in made)
    _, others = followed(0.0)
    assert all(np.array_equal(others[4][name], weights[4][name]) for name in made)


def test_a_finished_run_takes_less_than_a_hundred_bytes_of_disk_a_character(mixture_run):
    """The counts are in the model, and in the one checkpoint to train on from."""
    files = [path.stat() for path in mixture_run.path.rglob("*") if path.is_file()]
    assert sum({file.st_ino: file.st_size for file in files}.values()) < 100 * len(TEXT)


class Scripted:
    """A trainer that trains nothing and notes what it is given."""

    def __init__(self):
        self.data: list[Dataset] = []

    def train(self, model, data, context):
        self.data.append(data)
        yield "unknown"
        yield StepDone(step=1, steps=1, epoch=1, loss=2.0, tokens=3)
        yield Evaluated(step=1, epoch=1, training_loss=2.0, validation_loss=3.0)

    def state(self):
        return TrainerState()

    def load_state(self, state): ...


@pytest.mark.parametrize("held_out", [0, 2_000])
def test_the_text_of_the_gate_is_neither_fitted_on_nor_reported(mixture_run, held_out):
    from textgen_builtins.models.mixture.trainer import MixtureTrainer
    from textgen_builtins.models.ngram.counting import CountTrainer

    tokenizer = mixture_run.generator.tokenizer
    data = dataset(tokenizer.encode(TEXT), tokenizer.vocab_size)
    if not held_out:
        data = attrs.evolve(data, validation=data.validation[:0])
    first, counted = Scripted(), []

    class Counting(CountTrainer):
        def train(self, model, data, context):
            counted.append(data)
            return super().train(model, data, context)

    events = list(MixtureTrainer(first, Counting).train(fresh(mixture_run), data, CONTEXT))
    (given,) = first.data
    assert len(given.training) == 17_100
    assert (np.asarray(given.validation) == np.asarray(data.training)[-512:]).all()
    assert [len(part.training) for part in counted] == [17_100, 18_000]
    assert not any(len(part.validation) for part in counted)
    assert events[0] == "unknown"
    assert (events[-1].validation_loss is None) == (not held_out)
    assert events[-1].validation_loss != 3.0


def fresh(run):
    """A copy of a run's model."""
    return Engine().load(run.path).model


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ({"second": RNN}, "'count'"),
        ({"first": NGRAM}, "gradient"),
    ],
)
def test_parts_that_do_not_fit_are_named(model, fault, tmp_path):
    with pytest.raises(UsageError, match=fault):
        Engine().run(pipeline(tmp_path, MODEL | model, TRAINER))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_network_read_in_rows_says_what_it_says_in_one_stream(mixture_run, threads):
    network, tokenizer = fresh(mixture_run).first, mixture_run.generator.tokenizer
    knowing = attrs.evolve(context(training=True), tokenizer=tokenizer)
    module = Engine().build("model", RNN, knowing)
    module.load_tensors(network.tensors())
    tokens = tokenizer.encode(TEXT[:4_000])
    lengths = set()
    module.register_forward_pre_hook(lambda _, given: lengths.add(given[0].shape[1]))
    with torch_threads(threads):
        in_rows = expert_logs(module, tokens, 50)[:, 0]
    stream = log_softmax(network.decoder(1).score(tokens[None]))[0]
    np.testing.assert_allclose(in_rows, stream, atol=1e-3)
    assert module.training
    assert max(lengths) == 50  # as in training: a network may have positions for no more
