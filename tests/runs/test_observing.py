"""Observers: what they may read, how they end a run early, and when they are told that it is
finished.
"""

import itertools
import types
import warnings
from pathlib import Path

import attrs
import pytest
from components import Recorder, engine_of
from raising import raises
from small_run import record_of

import textgen
from textgen.events import (
    Checkpointed,
    Evaluated,
    Evaluation,
    RunFinished,
    RunSkipped,
    RunStarted,
    StepDone,
    Stop,
)


@attrs.frozen
class StopAt:
    """Ends the run at the first event of a kind whose step is at least this."""

    kind: type
    step: int

    def observe(self, event):
        return Stop("enough") if isinstance(event, self.kind) and event.step >= self.step else None


def engine_with(train):
    """An engine with a trainer `odd` whose events are these, and which keeps no state."""
    trainer = types.SimpleNamespace(
        train=lambda model, data, context: train(),
        state=textgen.protocols.TrainerState,
        load_state=lambda state: None,
    )
    return engine_of(trainer=lambda context: trainer)


def test_a_run_is_finished_when_observers_hear_of_it_and_what_they_raise_does_not_undo_it(
    tiny_pipeline,
):
    tables, texts = tiny_pipeline(), []

    def load(event):
        if isinstance(event, RunFinished):
            assert event.status == "finished"
            texts.append(textgen.load(tables["output"]).generate("the", max_new_tokens=10).text)
            raise ValueError("too late")

    with raises(ValueError, args=("too late",)):
        textgen.run(tables, observers=[load])
    run = textgen.run(tables)
    assert run.outcome == "skipped"
    assert texts == [run.generator.generate("the", max_new_tokens=10).text]


@pytest.mark.parametrize(
    "kind",
    [
        RunStarted,
        Evaluation,
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in (StepDone, Checkpointed)),
    ],
)
def test_an_observer_ends_a_run_early_as_finished(tiny_pipeline, kind):
    tables = tiny_pipeline(trainer={"length": "6 epochs"}, checkpoint={"seconds": 0})
    stop = StopAt(kind, 0 if kind is RunStarted else 4)
    whole = textgen.run(tables, output=Path(tables["output"]).with_name("whole"))
    seen = Recorder()
    run = textgen.run(tables, observers=[stop, seen])
    record, whole_record = record_of(run.path), record_of(whole.path)
    assert (run.outcome, record["status"]) == ("trained", "finished")
    assert record["stopped"] == {"by": "StopAt", "reason": "enough"}
    step = next(event.step for event in seen.of(kind) if event.step >= stop.step)
    assert record["step"] == step < whole_record["step"]
    assert "stopped" not in whole_record
    assert seen.events[-1] == RunFinished(step=step, status="finished", stopped_by="StopAt")
    assert len(run.generations[0].text) == 10
    assert textgen.run(tables).outcome == "skipped"


def test_a_trainer_is_told_when_a_run_ends_early(tiny_pipeline):
    """Its generator is closed, and not left to the garbage collector."""
    closed = []

    def train():
        try:
            for step in range(1, 100):
                yield StepDone(step=step, steps=100, epoch=1, loss=1.0, tokens=8)
        finally:
            closed.append("here")

    tables = tiny_pipeline(observer=[{"type": "metrics"}]) | {"trainer": {"type": "odd"}}
    engine_with(train).run(tables, observers=[StopAt(StepDone, 3)])
    assert closed == ["here"]


def test_the_speed_is_that_of_training_alone(tiny_pipeline, monkeypatch):
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("textgen.runs.training.time", clock)

    def train():
        now[0] += 2
        now[0] += 3
        yield StepDone(step=1, steps=1, epoch=1, loss=1.0, tokens=100)
        now[0] += 15
        yield Evaluated(step=1, epoch=1, training_loss=1.0)

    tables = {**tiny_pipeline(observers=True), "trainer": {"type": "odd"}}
    run = engine_with(train).run(tables)
    assert [row["characters_per_second"] for row in run.history] == [20]


def test_another_answer_is_a_fault_of_the_observer(tiny_pipeline):
    def wrong(event):
        return Stop  # the class

    with pytest.raises(TypeError):
        textgen.run(tiny_pipeline(), observers=[wrong])
    engine = engine_of(observer=lambda context: types.SimpleNamespace(observe=wrong))
    with pytest.warns(textgen.PluginWarning, match="TypeError"):
        run = engine.run(tiny_pipeline(observer=[{"type": "odd"}]))
    assert "stopped" not in record_of(run.path)


def test_a_skipped_run_tells_the_observers_of_the_pipeline_too(tiny_pipeline):
    recorder, tables = Recorder(), tiny_pipeline(observer=[{"type": "odd"}])
    engine = engine_of(observer=lambda context: recorder)
    run = engine.run(tables)
    assert engine.run(tables).outcome == "skipped"
    *_, finished, skipped = recorder.events
    assert isinstance(finished, RunFinished)
    assert skipped == RunSkipped(path=run.path, step=record_of(run.path)["step"])


class Counting:
    """Counts the steps of a run, over its interruptions."""

    def __init__(self, context=None):
        self.steps = 0

    def observe(self, event):
        self.steps += isinstance(event, StepDone)
        if isinstance(event, RunFinished):
            counted.append((event.status, event.cause, self.steps))

    def state(self):
        return {"steps": self.steps}

    def load_state(self, state):
        self.steps = state["steps"]


counted = []


def test_the_state_of_an_observer_is_in_the_checkpoints_and_it_hears_why_a_run_failed(
    tiny_pipeline,
):
    counted.clear()
    engine, asked = engine_of(observer=Counting), itertools.count(1)
    tables = tiny_pipeline(observer=[{"type": "odd"}, {"type": "odd"}])

    def fail(event):
        if isinstance(event, StepDone) and event.step == 3:
            raise ZeroDivisionError("by zero")

    with pytest.raises(textgen.Interrupted):
        engine.run(tables, cancelled=lambda: next(asked) == 2)
    with pytest.raises(ZeroDivisionError):
        engine.run(tables, observers=[fail])
    steps = record_of(engine.run(tables).path)["step"]
    (stopped, _, two), _, (failed, cause, three), _, *ends = counted
    assert (stopped, two, failed, three) == ("interrupted", 2, "failed", 3)
    assert "by zero" in cause
    assert ends == [("finished", "", steps)] * 2


@pytest.mark.parametrize("method", ["state", "load_state"])
def test_an_observer_whose_state_fails_is_left_out(tiny_pipeline, method):
    class Failing(Counting):
        """Keeps what no JSON has."""

        state = (lambda self: {"steps": {1}}) if method == "state" else Counting.state

        def load_state(self, state):
            raise KeyError("turns")

    engine, asked = engine_of(observer=Failing), itertools.count(1)
    tables = tiny_pipeline(observer=[{"type": "odd"}])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(textgen.Interrupted):
            engine.run(tables, cancelled=lambda: next(asked) == 2)
        assert engine.run(tables).outcome == "resumed"
    assert {"left out" in str(each.message) for each in said} == {True}
