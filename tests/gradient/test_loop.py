"""The training loop of textgen.gradient: what it resumes, decides and measures."""

import functools
import json
import tomllib

import attrs
import numpy as np
import pytest
import torch
from components import Recorder
from networks import Recurrent
from raising import raises
from small_trainings import VOCAB_SIZE, pipeline, run_in_parts, train

import textgen
from textgen import Engine, TrainingError
from textgen.data import Windows
from textgen.events import Evaluation, StepDone
from textgen.gradient import (
    GradientOptions,
    GradientTrainer,
    constant,
    cosine,
    warmup_stable_decay,
)
from textgen.gradient.batches import training_batches
from textgen.protocols import TrainerState


@pytest.mark.slow
@pytest.mark.parametrize("order", ["shuffled", "streams"])
def test_a_run_in_parts_is_the_run_in_one(order, tmp_path):
    trainer = {"precision": "bfloat16", "warmup_steps": 4, "accumulate": 3, "order": order}
    run = functools.partial(textgen.run, pipeline(trainer))
    parts = run_in_parts(run, tmp_path / "parts", [4, 11])
    assert parts.outcome == "resumed"
    assert parts.generator.model_id == run(output=tmp_path / "whole").generator.model_id


def test_no_more_rows_are_computed_at_once_than_a_small_batch_has():
    model, rows, recorder = Recurrent(VOCAB_SIZE), [], Recorder()
    model.register_forward_pre_hook(lambda m, given: rows.append(m.training * len(given[0])))
    options = {"type": "sgd", "length": "2 steps", "batch_size": 3, "accumulate": 2}
    train(model, trainer=options, threads=1, observers=[recorder])
    assert max(rows) == 3
    assert len(recorder.of(StepDone)) == 2


def test_what_a_run_has_decided_is_kept_when_it_resumes(tmp_path):
    tables = pipeline({"length": "1s", "precision": "auto"})
    path, recorder = tmp_path / "run", Recorder()

    def has_decided():
        done = recorder.of(StepDone)
        return bool(done) and done[-1].step >= done[-1].steps_before_decay

    def state():
        (newest,) = sorted(path.glob("checkpoints/*/trainer.json"))[-1:]
        return json.loads(newest.read_text())["trainer"]

    with pytest.raises(textgen.Interrupted):
        textgen.run(tables, output=path, observers=[recorder], cancelled=has_decided)
    decided = state()
    record = textgen.run(tables, output=path).generator.record
    assert state()["precision"] == decided["precision"] != "auto"
    assert record["step"] == state()["steps"] >= record["steps_before_decay"] > 0
    saved = tomllib.loads((path / "pipeline.toml").read_text())
    assert (saved["trainer"]["length"], saved["trainer"]["precision"]) == ("1s", "auto")
    for same in (tables, saved):
        assert textgen.run(same, output=path).outcome == "skipped"


def test_the_validation_loss_is_what_evaluate_gives(tmp_path):
    """The held-out text is read as one stream, though in parts side by side."""
    tables = pipeline({"length": "20 steps", "evaluate_every": 20})
    tables["data"]["validation"] = 0.1
    recorder = Recorder()
    run = textgen.run(tables, output=tmp_path / "run", observers=[recorder])
    text = "".join(Engine().read_corpus({"type": "story"}))
    best = min(event.validation_loss for event in recorder.of(Evaluation))
    assert best == pytest.approx(run.generator.score(text[-len(text) // 10 :]).loss, abs=2e-3)


@pytest.mark.parametrize("order", ["streams", "shuffled"])
def test_windows_begin_elsewhere_in_every_epoch(order):
    windows = Windows(np.arange(1000), 10, 10)
    batches = training_batches(GradientOptions(order=order, batch_size=4), windows, seed=3)
    firsts = {int(batches.batch(epoch, 0)[0][0, 0]) for epoch in range(6)}
    assert len(firsts) == 6
    assert len({first % 10 for first in firsts}) > 1


# Optimizers, models and trainers of authors.


class Counting(torch.optim.Optimizer):
    """Plain descent whose rate falls with a count of its own, kept as an int and in its group."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1, "calls": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["calls"] += 1
            for parameter in group["params"]:
                marks = self.state[parameter].setdefault("marks", [0])
                marks[0] += 1
                parameter.sub_(parameter.grad, alpha=group["lr"] / (marks[0] + group["calls"]))


def odd_trainer():
    """Two optimizers, one of which counts in Python."""

    def optimizers(parameters):
        rest = parameters.of_role("embedding", "vector", "head")
        return [Counting(parameters.of_role("matrix")), torch.optim.Adam(rest, lr=0.01)]

    return GradientTrainer(GradientOptions(length="12 steps", batch_size=8), optimizers)


def test_what_optimizers_keep_is_resumed(tmp_path):
    def run(**more):
        return train({"type": "rnn", "embedding_size": 6}, trainer=odd_trainer(), **more)

    parts = run_in_parts(run, tmp_path / "run", [3, 5])
    assert parts.generator.model_id == run().generator.model_id


class Dear(Recurrent):
    """Its steps have a term more."""

    def token_losses(self, tokens, targets, state=None):
        logits, state = self(tokens, state)
        losses = torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")
        return losses + 100 * self.training, state


def test_a_term_that_a_model_adds_to_its_losses_is_not_in_evaluations():
    recorder = Recorder()
    train(Dear(VOCAB_SIZE), observers=[recorder])
    assert all(event.loss > 100 for event in recorder.of(StepDone))
    assert all(event.validation_loss < 10 for event in recorder.of(Evaluation))


@attrs.define
class LateTrainer:
    """Gives losses as tensors, the 20th of which is NaN."""

    given: int = 0

    def train(self, model, data, context):
        for step in range(1, 200):
            self.given = step
            loss = torch.tensor(float("nan") if step >= 20 else 2.0)
            yield StepDone(
                step=step, steps=200, epoch=1, loss=loss, tokens=8, gradient_norm=torch.tensor(1.0)
            )

    def state(self):
        return TrainerState()

    def load_state(self, state): ...


def test_a_nan_that_stays_on_the_device_stops_the_run_a_few_steps_later():
    trainer = LateTrainer()
    with raises(TrainingError, step=20):
        train("rnn", trainer=trainer)
    assert 20 <= trainer.given <= 30


# Schedules.


def test_schedules():
    assert constant(5, 10) == 1
    rising = cosine(warmup=4, final=0.1)
    assert [rising(step, 100) for step in (1, 4)] == [0.25, 1.0]
    assert rising(100, 100) == pytest.approx(0.1)
    stable = warmup_stable_decay(warmup=10, decay=0.5, final=0.0)
    assert [stable(step, 100) for step in (5, 10, 51)] == [0.5, 1.0, 1.0]
    assert stable(100, 100) == pytest.approx(0.02)
    assert stable(40, 100) == stable(40, 10_000)
