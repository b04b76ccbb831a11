"""Observers: what they may read, how they end a run early, and when they are told that it is
finished.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from components import Recorder, engine_of

import textgen
from textgen.events import (
    Checkpointed,
    Decided,
    Evaluated,
    Evaluation,
    RunFinished,
    RunSkipped,
    RunStarted,
    StepDone,
    Stop,
)
from textgen.runs.directory import RunDirectory


@attrs.frozen
class StopAt:
    """Ends the run at the first event of a kind whose step is at least this."""

    kind: type
    step: int

    def observe(self, event: Any) -> Stop | None:
        return Stop("enough") if isinstance(event, self.kind) and event.step >= self.step else None


def record_of(path: Path) -> Any:
    return json.loads((path / "run.json").read_text())


def test_a_run_is_finished_when_observers_hear_of_it_and_what_they_raise_does_not_undo_it(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    texts = []

    @attrs.frozen
    class Loads:
        path: Path

        def observe(self, event: Any) -> None:
            if isinstance(event, RunFinished):
                assert event.status == "finished"
                texts.append(textgen.load(self.path).generate("the", max_new_tokens=10).text)
                raise ValueError("too late")

    tables = tiny_pipeline()
    with pytest.raises(ValueError, match="too late"):
        textgen.run(tables, observers=[Loads(Path(tables["output"]))])
    run = textgen.run(tables)
    assert run.outcome == "skipped"
    assert texts == [run.generator.generate("the", max_new_tokens=10).text]


@pytest.mark.parametrize("kind", [RunStarted, StepDone, Evaluation, Checkpointed])
def test_an_observer_ends_a_run_early_as_finished(
    tiny_pipeline: Callable[..., dict[str, Any]], kind: type
) -> None:
    tables = tiny_pipeline(trainer={"length": "6 epochs"}, checkpoint={"seconds": 0})
    stop = StopAt(kind, 0 if kind is RunStarted else 4)
    whole = textgen.run(tables, output=Path(tables["output"]).with_name("whole"))
    seen = Recorder()
    run = textgen.run(tables, observers=[stop, seen])
    record = record_of(run.path)
    assert run.outcome == "trained"
    assert record["status"] == "finished"
    assert record["stopped"] == {"by": "StopAt", "reason": "enough"}
    assert record["step"] == next(event.step for event in seen.of(kind) if event.step >= stop.step)
    assert record_of(whole.path)["step"] > record["step"]
    assert "stopped" not in record_of(whole.path)
    assert seen.events[-1] == RunFinished(
        step=record["step"], status="finished", stopped_by="StopAt"
    )
    assert len(run.generations[0].text) == 10
    assert textgen.run(tables).outcome == "skipped"


def test_a_trainer_is_told_when_a_run_ends_early(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    """Its generator is closed, and not left to the garbage collector."""
    closed = []

    class Trainer:
        def train(self, model: Any, data: Any, context: Any) -> Any:
            try:
                for step in range(1, 100):
                    yield StepDone(step=step, steps=100, epoch=1, loss=1.0, tokens=8)
            finally:
                closed.append("here")

        def state(self) -> Any:
            return textgen.protocols.TrainerState()

        def load_state(self, state: Any) -> None:
            pass

    engine_of(trainer=lambda context: Trainer()).run(
        {**tiny_pipeline(), "trainer": {"type": "odd"}}, observers=[StopAt(StepDone, 3)]
    )
    assert closed == ["here"]


def test_the_speed_is_that_of_training_alone(
    tiny_pipeline: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("textgen.runs.training.time", clock)

    class Trainer:
        def train(self, model: Any, data: Any, context: Any) -> Any:
            now[0] += 2
            yield Decided(values={"steps": 1})
            now[0] += 3
            yield StepDone(step=1, steps=1, epoch=1, loss=1.0, tokens=100)
            now[0] += 15
            yield Evaluated(step=1, epoch=1, training_loss=1.0)

        def state(self) -> Any:
            return textgen.protocols.TrainerState()

        def load_state(self, state: Any) -> None:
            pass

    run = engine_of(trainer=lambda context: Trainer()).run(
        {**tiny_pipeline(observers=True), "trainer": {"type": "odd"}}
    )
    assert [row["characters_per_second"] for row in run.history] == [20]


def test_another_answer_is_a_fault_of_the_observer(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    class Wrong:
        def observe(self, event: Any) -> Any:
            return Stop  # the class

    with pytest.raises(
        TypeError, match=r"observe must return None or a textgen\.events\.Stop, and returned <class"
    ):
        textgen.run(tiny_pipeline(), observers=[Wrong()])
    engine = engine_of(observer=lambda context: Wrong())
    with pytest.warns(
        textgen.PluginWarning, match="is left out: TypeError: observe must return None"
    ):
        run = engine.run(tiny_pipeline(observer=[{"type": "odd"}]))
    assert "stopped" not in record_of(run.path)


def test_the_model_can_be_read_at_an_evaluation(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    norms = []

    class Reads:
        def observe(self, event: Any) -> None:
            if isinstance(event, Evaluation):
                tensors = event.model.tensors()
                norms.append(sum(float(np.square(array).sum()) for array in tensors.values()))
                assert sum(p.numel() for p in event.model.parameters()) > 0

    run = textgen.run(tiny_pipeline(), observers=[Reads()])
    assert len(set(norms)) == len(norms) >= 2  # as it is now
    final = sum(float(np.square(array).sum()) for array in run.generator.model.tensors().values())
    assert final == pytest.approx(norms[record_of(run.path)["evaluations"] - 1])


def test_a_skipped_run_tells_the_observers_of_the_pipeline_too(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    made: list[Recorder] = []

    def make(context: Any) -> Recorder:
        made.append(Recorder())
        return made[-1]

    engine, tables = engine_of(observer=make), tiny_pipeline(observer=[{"type": "odd"}])
    run = engine.run(tables)
    assert engine.run(tables).outcome == "skipped"
    assert [type(event) for event in made[0].events][-1] is RunFinished
    assert made[1].events == [RunSkipped(path=run.path, step=record_of(run.path)["step"])]


# Early stopping.


def overfitting(tiny_pipeline: Callable[..., dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A pipeline whose validation loss soon rises: the held-out part is unlike the rest."""
    text = "abcd" * 300 + "dcba" * 30
    return tiny_pipeline(
        text=text,
        data={"validation": 0.09},
        trainer={"type": "adamw", "length": "40 epochs", "learning_rate": 0.05},
        observer=[{"type": "early-stopping", "patience": 3}, {"type": "metrics"}],
        **changes,
    )


def losses(path: Path) -> list[float]:
    return [
        json.loads(line)["validation_loss"]
        for line in (path / "metrics.jsonl").read_text().splitlines()
    ]


def test_early_stopping_ends_a_run_when_the_loss_no_longer_falls(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    run = textgen.run(overfitting(tiny_pipeline))
    measured, record = losses(run.path), record_of(run.path)
    assert len(measured) == record["evaluations"] < 40
    assert record["stopped"] == {"by": "early-stopping", "reason": "no lower loss in 3 evaluations"}
    assert measured.index(min(measured)) == len(measured) - 4
    assert record["best_loss"] == min(measured)
    said = r"observer\.early-stopping\.patience: 3 before, 4 now"
    with pytest.raises(textgen.RunMismatchError, match=said):
        textgen.run(overfitting(tiny_pipeline), {"observer.0.patience": 4})


@pytest.mark.slow
def test_early_stopping_ends_a_resumed_run_where_it_would_have(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    tables = overfitting(tiny_pipeline)
    whole = textgen.run(tables, output=Path(tables["output"]).with_name("whole"))
    interruptions, run = 0, None
    while run is None:
        try:
            run = textgen.run(tables, cancelled=lambda: True)  # after every event
        except textgen.Interrupted:
            interruptions += 1
    assert interruptions > 10
    assert losses(run.path) == losses(whole.path)
    assert record_of(run.path)["stopped"] == record_of(whole.path)["stopped"]
    assert (run.path / "model.safetensors").read_bytes() == (
        whole.path / "model.safetensors"
    ).read_bytes()


def test_a_run_that_was_killed_after_its_last_evaluation_ends_there(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    tables = overfitting(tiny_pipeline)
    whole = textgen.run(tables)
    record = record_of(whole.path)

    class Killer:
        def observe(self, event: Any) -> None:
            if isinstance(event, Checkpointed) and event.step == record["step"]:
                raise KeyboardInterrupt

    output = whole.path.with_name("killed")
    with pytest.raises(KeyboardInterrupt):
        textgen.run(tables, output=output, observers=[Killer()])
    again = textgen.run(tables, output=output)
    assert again.outcome == "resumed"
    assert record_of(again.path)["step"] == record["step"]
    assert losses(again.path) == losses(whole.path)
    checkpoint = RunDirectory(again.path).checkpoints.last()
    assert checkpoint is not None
    assert checkpoint.trainer.values["step"] == record["step"]
    assert checkpoint.trainer.arrays, "the optimizer's state is kept"


@pytest.mark.fault(7)
def test_a_loss_that_is_not_a_number_says_which_checkpoint_there_is(
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    class Explodes:
        at = 2

        def train(self, model: Any, data: Any, context: Any) -> Any:
            for step in range(1, self.at + 1):
                loss = float("nan") if step == self.at else 1.0
                yield StepDone(step=step, steps=9, epoch=1, loss=loss, tokens=8, learning_rate=2.0)

        def state(self) -> Any:
            return textgen.protocols.TrainerState()

        def load_state(self, state: Any) -> None:
            pass

    engine = engine_of(trainer=lambda context: Explodes())
    tables = {**tiny_pipeline(), "trainer": {"type": "odd"}}
    with pytest.raises(
        textgen.TrainingError,
        match=r"at step 2 with learning rate 2; .*; there is no checkpoint",
    ):
        engine.run(tables)
    with pytest.raises(textgen.TrainingError, match=r"; the checkpoint of step 1 is kept"):
        engine.run(tables, {"checkpoint.seconds": 0})


def test_early_stopping_without_held_out_text_says_that_it_does_nothing(
    tiny_pipeline: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    tables = tiny_pipeline(
        observer=[{"type": "early-stopping", "patience": 1}], data={"validation": 0.0}
    )
    run = textgen.run(tables)
    assert "stopped" not in record_of(run.path)
    assert "early-stopping does nothing where no text is held out" in caplog.text
