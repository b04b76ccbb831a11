"""The observer early-stopping: where it ends a run, also one that was interrupted."""

import pytest
from small_run import record_of

import textgen
from textgen.errors import Difference
from textgen.events import Checkpointed
from textgen.runs.directory import RunDirectory


@pytest.fixture
def overfitting(tiny_pipeline):
    """A pipeline whose validation loss soon rises: the held-out part is unlike the rest."""
    return tiny_pipeline(
        text="abcd" * 300 + "dcba" * 30,
        data={"validation": 0.09},
        trainer={"type": "adamw", "length": "40 epochs", "learning_rate": 0.05},
        observer=[{"type": "early-stopping", "patience": 3}, {"type": "metrics"}],
    )


def losses(run):
    return [row["validation_loss"] for row in run.history]


def test_early_stopping_ends_a_run_when_the_loss_no_longer_falls(overfitting):
    run = textgen.run(overfitting)
    measured, record = losses(run), record_of(run.path)
    assert len(measured) == record["evaluations"] < 40
    assert record["stopped"] == {"by": "early-stopping", "reason": "no lower loss in 3 evaluations"}
    assert measured.index(min(measured)) == len(measured) - 4
    assert record["best_loss"] == min(measured)
    last, best = (
        (run.path / f"checkpoints/step-{record[key]:06d}/model.safetensors").read_bytes()
        for key in ("step", "best_step")
    )
    assert best == (run.path / "model.safetensors").read_bytes() != last
    with pytest.raises(textgen.RunMismatchError) as caught:
        textgen.run(overfitting, {"observer.0.patience": 4})
    assert caught.value.differences == (Difference("observer.early-stopping.patience", 3, 4),)


def test_a_run_that_was_killed_after_its_last_evaluation_ends_there(overfitting, tmp_path):
    whole = textgen.run(overfitting, output=tmp_path / "whole")
    step = record_of(whole.path)["step"]

    def kill(event):
        if isinstance(event, Checkpointed) and event.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        textgen.run(overfitting, observers=[kill])
    again = textgen.run(overfitting)
    assert (again.outcome, record_of(again.path)["step"]) == ("resumed", step)
    assert losses(again) == losses(whole)
    checkpoint = RunDirectory(again.path).checkpoints.last()
    assert checkpoint.trainer.values["step"] == step
    assert checkpoint.trainer.arrays, "the optimizer's state is kept"


def test_early_stopping_without_held_out_text_says_that_it_does_nothing(tiny_pipeline, caplog):
    tables = tiny_pipeline(
        observer=[{"type": "early-stopping", "patience": 1}], data={"validation": 0.0}
    )
    run = textgen.run(tables)
    assert "stopped" not in record_of(run.path)
    assert "early-stopping does nothing where no text is held out" in caplog.text
