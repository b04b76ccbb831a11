"""What an unfinished run is good for: it is loaded, evaluated, and finished before its time."""

import io
import itertools
import json
import os
import types

import pytest
from commands import run_textgen, running, wait_for
from raising import raises
from small_run import ENDLESS, TEXT, interrupt, record_of, tables, text_of, tree

import textgen
from textgen.events import Checkpointed, Evaluation
from textgen.runs import reading_progress, save_run


def stopped(folder, steps, **trainer):
    """The directory of a run that was stopped after so many steps."""
    interrupt(steps, tables(folder), {"trainer": trainer}, output=folder / "run")
    return folder / "run"


class Worse:
    """Spoils the weights after the checkpoint of the first evaluation, whose loss then stays the
    lowest.
    """

    def observe(self, event):
        if isinstance(event, Evaluation):
            self.model = event.model
        elif isinstance(event, Checkpointed):
            import torch

            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.mul_(30)


def test_an_unfinished_run_is_its_best_checkpoint(folder):
    interrupt(5, tables(folder), output=folder / "run", observers=[Worse()])
    before = tree(folder / "run")
    progress = json.loads(before["checkpoints/step-000005/trainer.json"])["progress"]
    assert progress["best_step"] == 2, "the second evaluation is worse"
    with pytest.warns(UserWarning, match="step 2$"):
        generator = textgen.load(folder / "run")
    text = generator.generate("Once", max_new_tokens=30).text
    assert generator.score(TEXT).loss > 0
    assert tree(folder / "run") == before
    save_run(generator, folder / "saved")
    assert text_of(folder / "saved") == text  # without a warning: the copy is finished
    same = textgen.run(tables(folder), {"trainer.length": "2 steps"}, output=folder / "two")
    assert text_of(same.path) == text


@pytest.mark.slow
def test_a_run_is_loaded_while_another_process_trains_it(folder):
    """Its checkpoints come and go: at every step here."""
    with running(*ENDLESS, "--set", "checkpoint.seconds=0.001", folder=folder) as run:
        wait_for(run, "writes")
        while not any((folder / "runs/p/checkpoints").glob("step-*")):
            assert run.process.poll() is None
        for _ in range(8):
            with pytest.warns(UserWarning):
                assert len(text_of(folder / "runs/p")) == 30
        assert run.process.poll() is None


def test_a_run_whose_loss_falls_is_finished_with_its_newest_checkpoint(folder):
    """The last evaluation is as old as a tenth of the training, or all of it."""
    run = stopped(folder, 5, evaluate_every=2)
    with pytest.warns(UserWarning, match="step 5$"):
        text = text_of(run)
    finish = ("run", "run/pipeline.toml", "--output", "run", "--finish")
    done = run_textgen(*finish, folder=folder)
    record = record_of(run)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("run; textgen run --finish stopped it at step 5: by request\n")
    assert (record["step"], record["best_step"], record["best_loss"]) == (5, 5, None)
    assert (record["status"], record["stopped"]["by"]) == ("finished", "textgen run --finish")
    assert text_of(run) == text
    assert textgen.run(tables(folder), output=run).outcome == "skipped"

    before = tree(run)
    assert run_textgen(*finish, folder=folder).returncode == 0
    assert tree(run) == before


def test_a_run_without_a_checkpoint_is_neither_loaded_nor_finished(folder):
    engine, run = textgen.Engine(), folder / "run"
    with raises(textgen.RunError, path=folder):
        engine.finish(folder)

    def fail(event):
        if isinstance(event, Evaluation):
            with raises(textgen.RunLockedError, pid=os.getpid()):
                engine.finish(run)
            raise OSError("before a checkpoint")

    with raises(OSError, args=("before a checkpoint",)):
        textgen.run(tables(folder), output=run, observers=[fail])
    for use in (engine.load, engine.finish):
        with raises(textgen.RunError, path=run):
            use(run)
    assert not (run / "model.safetensors").exists()


def test_reading_a_long_corpus_is_said_and_can_be_stopped(tmp_path, monkeypatch):
    seconds = itertools.count(1)  # one for each piece of text
    monkeypatch.setattr(
        reading_progress, "time", types.SimpleNamespace(monotonic=lambda: float(next(seconds)))
    )
    console = io.StringIO()
    with pytest.raises(textgen.Interrupted) as stopped:
        textgen.train(
            corpus=[f"document {number}" for number in range(100)],
            model={"type": "rnn"},
            trainer="sgd",
            output=tmp_path / "run",
            console=console,
            cancelled=lambda: "encoding the corpus\n" in console.getvalue(),
        )
    assert "while the corpus was read" in str(stopped.value)
    assert next(seconds) < 10
    assert not (tmp_path / "run").exists()
