"""What a step sums, where a plugin says it: counts, held-out data, and faults."""

import functools
import json

import attrs
import numpy as np
import pytest
import torch
from components import Recorder, engine_of, engine_with
from raising import raises
from several_processes import run_together
from small_trainings import TEXT, run_in_parts, train
from test_processes import TRAINER, assert_alike, write

from textgen import Component, ContractError
from textgen.events import Evaluation, StepDone
from textgen.gradient import GradientOptions, GradientTrainer, NextToken

MASKED = """
import attrs
import numpy as np
from textgen import Component, NoOptions, hookimpl
from textgen.gradient import Batches, NextToken, token_losses, training_batches

class Rare(NextToken):
    def batches(self, data, options, seed):
        windows = data.training_windows()
        counted = attrs.evolve(windows, tokens=np.asarray(data.training) % 5 == 0)
        tokens, masks = (training_batches(options, each, seed) for each in (windows, counted))
        return Batches(
            tokens.per_epoch, lambda *place: (*tokens.batch(*place), *masks.batch(*place))
        )

    def count(self, batch):
        return int(batch[1][:, 1:].sum())

    def loss(self, model, batch, state):
        windows, counted = batch
        losses, state = token_losses(model, windows[:, :-1], windows[:, 1:], state)
        return (losses * counted[:, 1:]).sum(), state

@hookimpl
def textgen_objectives():
    return [Component("rare", NoOptions, lambda config, context: Rare())]
"""
RARE = {**TRAINER, "batch_size": 6, "objective": {"type": "rare"}}


@pytest.fixture
def engine(tmp_path):
    return engine_with(tmp_path / "rare.py", MASKED)


@pytest.mark.parametrize("order", ["streams", pytest.param("shuffled", marks=pytest.mark.slow)])
def test_a_sum_is_divided_by_the_count_of_all_rows_however_they_are_shared_out(
    engine, order, tmp_path
):
    """Rows have different numbers of tokens that count, so that a mean of means is another. Workers
    have different numbers of rows.
    """
    tables = write(tmp_path, {**RARE, "order": order})
    whole = engine.run({**tables, "threads": 1}, output=tmp_path / "whole")
    halves = {"threads": 2, "trainer.batch_size": 3, "trainer.accumulate": 2}
    parts = engine.run(tables, halves, output=tmp_path / "parts")
    assert_alike(parts.path, whole.path)
    assert [row["epoch"] for row in parts.history] == [row["epoch"] for row in whole.history]
    assert whole.history[0]["training_loss"] > 1, "a mean of some tokens, not a share of all"
    resumed = run_in_parts(functools.partial(engine.run, tables), tmp_path / "again", [3, 9])
    assert (resumed.outcome, resumed.best_loss) == ("resumed", pytest.approx(whole.best_loss))


@pytest.mark.slow
def test_processes_share_out_an_objective(engine, tmp_path):
    tables = write(tmp_path, RARE)
    alone = engine.run(tables, output=tmp_path / "alone")
    command = ("-m", "textgen", "--plugin", "rare.py", "run", "p.toml", "-q", "-o", "run")
    done = run_together(2, *command, folder=tmp_path)
    assert [each.returncode for each in done] == [0, 0], done[0].stderr
    assert_alike(tmp_path / "run", alone.path)


class Measured(NextToken):
    """Has figures of its own for held-out data."""

    def __init__(self):
        self.values = [3.0, 1.0, 2.0]

    def validation(self, data, options):
        return [(np.zeros((2, 3), np.int64),)]

    def loss(self, model, batch, state):
        if model.training:
            return super().loss(model, batch, state)
        return torch.tensor(self.values.pop(0) * 4), ()


OWN = """
class Own(Rare):
    def validation(self, data, options):
        yield self.batches(data, options, 0).batch(0, 0)

    def loss(self, model, batch, state):
        made, state = super().loss(model, batch, state)
        return (made if model.training else -made), state

@hookimpl
def textgen_objectives():
    return [Component("rare", NoOptions, lambda config, context: Own())]
"""


def test_the_command_says_by_what_the_weights_were_chosen(engine, textgen, tmp_path):
    """The first ones: this objective grows as the model learns."""
    write(tmp_path, {**RARE, "evaluate_every": 4})
    (tmp_path / "rare.py").write_text(MASKED + OWN)
    done = textgen("--plugin", "rare.py", "run", "p.toml", "-o", "run", cwd=tmp_path)
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["objective"])
    assert best["validation_loss"] > min(row["validation_loss"] for row in rows)
    said = f"step {best['step']} of {rows[-1]['step']}, with the lowest objective"
    assert f"{said}: {best['objective']:.3f}" in done.stderr


def sgd(objective, **options):
    options = GradientOptions(length="6 steps", batch_size=5, evaluate_every=2, **options)
    make = functools.partial(torch.optim.SGD, lr=0.1)
    return GradientTrainer(options, make, objective=objective)


def test_the_mean_over_its_own_held_out_data_chooses_the_weights():
    recorder = Recorder()
    run = train("rnn", trainer=sgd(Measured()), threads=1, observers=[recorder])
    made = recorder.of(Evaluation)
    assert [each.figures["objective"] for each in made] == [3.0, 1.0, 2.0]
    assert [row["objective"] for row in run.history] == [3.0, 1.0, 2.0]
    assert (run.generator.record["best_step"], run.best_loss) == (4, made[1].validation_loss)
    assert all(each.validation_loss > 2 for each in made), "which stays the cross-entropy"
    assert {each.tokens for each in recorder.of(StepDone)} == {60}


def test_a_state_of_none_is_no_state():
    class Stateless(NextToken):
        def loss(self, model, batch, state):
            return super().loss(model, batch, state)[0], None

    for order in ("shuffled", "streams"):
        assert train("rnn", trainer=sgd(Stateless(), order=order), threads=1).best_loss > 0


@pytest.mark.parametrize("given", [1.5, (1.5, ()), (torch.ones(2), ()), torch.tensor(1.0)])
def test_a_loss_that_is_no_sum_names_the_objective(given):
    class Odd(NextToken):
        def loss(self, model, batch, state):
            return given

    engine = engine_of(objective=lambda context: Odd())
    trainer = {"type": "sgd", "length": "1 step", "objective": {"type": "odd"}}
    with raises(ContractError, kind="objective", component="odd"):
        engine.train(corpus=TEXT, model="rnn", trainer=trainer)


def test_a_trainer_that_forgets_the_objective_says_so():
    @attrs.frozen(kw_only=True)
    class Options(GradientOptions):
        """Any."""

    def build(config, context):
        return GradientTrainer(config, torch.optim.SGD)

    made = [Component("forgetful", Options, build)]
    engine = engine_of(trainer=made, objective=lambda context: NextToken())
    trainer = {"type": "forgetful", "objective": {"type": "odd"}}
    with raises(ContractError, kind="trainer", component="forgetful"):
        engine.train(corpus=TEXT, model="rnn", trainer=trainer)
