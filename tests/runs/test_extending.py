"""A finished run that goes on with more steps, and what comes of it."""

import pytest
from components import Recorder, engine_with
from small_run import TEXT, assert_same, interrupt, tables, text_of, tree

import textgen
from textgen.errors import Difference
from textgen.events import RunStarted


def pipeline(folder, *, steps=10, warmup_steps=3):
    """A run whose learning rate stays the same for half of its steps, and is then lowered."""
    made = tables(folder, "adamw", "streams")
    made["trainer"] |= {
        "decay_share": 0.5,
        "length": f"{steps} steps",
        "warmup_steps": warmup_steps,
    }
    return made


def constant(folder, *, steps):
    made = tables(folder, order="streams")
    made["trainer"]["length"] = f"{steps} steps"
    return made


def growing_worse(folder, *, steps):
    """Its best weights are those of an early step."""
    made = constant(folder, steps=steps)
    made["trainer"]["learning_rate"] = 6.0
    return made


def mixture(folder, *, steps):
    made = pipeline(folder, steps=steps)
    for table in ("model", "trainer"):
        made[table] = {"type": "mixture", "first": made[table]}
    return made


def warming_up(folder, *, steps):
    """Ten steps of it end within the warm-up."""
    return pipeline(folder, steps=steps, warmup_steps=12)


@pytest.mark.parametrize(
    ("make", "start"),
    [
        (pipeline, 6),
        (constant, 10),
        (growing_worse, 10),
        (warming_up, 7),
        pytest.param(mixture, 6, marks=pytest.mark.slow),
    ],
)
def test_gone_on_with_more_steps_is_as_if_trained_in_one_go(folder, make, start):
    whole = textgen.run(make(folder, steps=20), output=folder / "whole")
    textgen.run(make(folder, steps=10), output=folder / "parts")
    recorder = Recorder()
    extended = textgen.run(make(folder, steps=20), output=folder / "parts", observers=[recorder])
    (began,) = recorder.of(RunStarted)
    assert (extended.outcome, began.step) == ("resumed", start)
    assert_same(extended.path, whole.path)
    assert textgen.run(make(folder, steps=20), output=folder / "parts").outcome == "skipped"
    assert not (folder / "parts/.next-run").exists()


DIARY = """
import attrs

from textgen import Component, hookimpl
from textgen.events import RunStarted, StepDone


@attrs.frozen
class Config:
    "Notes each step in a file, and in one of a folder."


class Diary:
    def __init__(self, directory):
        self.files = [directory / "diary.txt", directory / "diary" / "steps.txt"]

    def observe(self, event):
        for file in self.files:
            if isinstance(event, RunStarted):
                file.parent.mkdir(exist_ok=True)
                lines = file.read_text().splitlines() if event.step else []
                file.write_text("".join(f"{line}\\n" for line in lines[: event.step]))
            elif isinstance(event, StepDone):
                with file.open("a") as opened:
                    opened.write(f"step {event.step}\\n")


@hookimpl
def textgen_observers():
    return [Component("diary", Config, lambda config, context: Diary(context.directory))]
"""


def test_files_of_a_plugin_s_observer_go_on(folder):
    engine = engine_with(folder / "diary.py", DIARY)
    for steps in (10, 20):
        made = constant(folder, steps=steps) | {"observer": [{"type": "diary"}]}
        run = engine.run(made, output=folder / "run").path
    for name in ("diary.txt", "diary/steps.txt"):
        assert (run / name).read_text().split("\n") == [*(f"step {n}" for n in range(1, 21)), ""]


def test_a_file_that_is_changed_while_a_run_goes_on_keeps_the_change(folder):
    run = textgen.run(constant(folder, steps=10), output=folder / "run").path
    (run / "notes.txt").write_text("before")

    class Author:
        def observe(self, event):
            if isinstance(event, RunStarted):
                (run / "notes.txt").write_text("after")

    textgen.run(constant(folder, steps=20), output=run, observers=[Author()])
    assert (run / "notes.txt").read_text() == "after"


@pytest.mark.unix
def test_what_a_link_in_the_run_names_stays_where_it_is(folder):
    secret = folder / "secret.txt"
    secret.write_text("a key")
    run = textgen.run(constant(folder, steps=10), output=folder / "run").path
    (run / "link.txt").symlink_to(secret)
    (run / "folder").symlink_to(folder)
    textgen.run(constant(folder, steps=20), output=run)
    assert (run / "link.txt").is_symlink()
    assert (run / "folder").is_symlink()


@pytest.mark.slow
def test_going_on_may_be_interrupted_and_done_twice(folder):
    """After every step, with the finished model at hand until the longer run is finished."""
    whole = textgen.run(pipeline(folder, steps=20), output=folder / "whole")
    run = textgen.run(pipeline(folder, steps=6), output=folder / "parts").path
    textgen.run(pipeline(folder, steps=10), output=run)
    before, interruptions = text_of(run), 0
    while True:
        try:
            textgen.run(pipeline(folder, steps=20), output=run, cancelled=lambda: True)
            break
        except textgen.Interrupted:
            interruptions += 1
            with pytest.warns(UserWarning):
                assert text_of(run) == before
    assert interruptions >= 10
    assert_same(run, whole.path)


def test_a_run_that_was_finished_early_goes_on_from_its_last_step(folder):
    whole = textgen.run(pipeline(folder, steps=20), output=folder / "whole")
    interrupt(4, pipeline(folder), output=folder / "run")
    assert textgen.Engine().finish(folder / "run")
    recorder = Recorder()
    run = textgen.run(pipeline(folder, steps=20), output=folder / "run", observers=[recorder])
    assert 1 < recorder.of(RunStarted)[0].step < 5
    assert_same(run.path, whole.path)


@pytest.mark.parametrize("make", [pipeline, constant])
def test_a_longer_time_beside_as_many_steps_trains_no_more(folder, make):
    made = make(folder, steps=10)
    lengths = ({"trainer.length": f"10 steps or {hours}h"} for hours in (1, 2))
    runs = [textgen.run(made, length, output=folder / "run") for length in lengths]
    assert [run.history[-1]["step"] for run in runs] == [10, 10]
    assert runs[1].outcome == "resumed"


def test_an_unfinished_run_that_is_to_have_another_length_says_how_it_goes_on(folder):
    interrupt(1, pipeline(folder, steps=20), output=folder / "run")
    with pytest.raises(textgen.RunMismatchError) as caught:
        textgen.run(pipeline(folder, steps=40), output=folder / "run")
    assert Difference("trainer.length", "20 steps", "40 steps") in caught.value.differences
    assert "textgen run --finish" in caught.value.reason


def test_a_run_that_was_finished_before_its_steps_were_decided_goes_on(folder):
    made, recorder = pipeline(folder), Recorder()
    interrupt(2, made, {"trainer.length": "30s"}, output=folder / "run")
    assert textgen.Engine().finish(folder / "run")
    longer = {"trainer.length": "40s"}
    interrupt(2, made, longer, output=folder / "run", observers=[recorder])
    (began,) = recorder.of(RunStarted)
    assert began.step == 2


@pytest.mark.fault(6)
@pytest.mark.parametrize(
    ("steps", "changes", "text", "others"),
    [
        (8, {}, TEXT, set()),
        (20, {"trainer.momentum": 0.5}, TEXT, {"trainer.momentum"}),
        (
            20,
            {},
            TEXT + "One more raven.\n",
            {"corpus.characters", "corpus.sha256"},
        ),
    ],
)
def test_other_changes_are_another_pipeline(folder, steps, changes, text, others):
    run = textgen.run(constant(folder, steps=10), output=folder / "run").path
    before = tree(run)
    (folder / "text.txt").write_text(text)
    with pytest.raises(textgen.RunMismatchError) as caught:
        textgen.run(constant(folder, steps=steps), changes, output=run)
    assert {each.key for each in caught.value.differences} == {"trainer.length", *others}
    assert tree(run) == before


FALLING = """
import torch
from textgen import Component, hookimpl
from textgen.gradient import GradientOptions, GradientTrainer, cosine

@hookimpl
def textgen_trainers():
    def build(config, context):
        return GradientTrainer(config, torch.optim.SGD, cosine())

    return [Component("falling", GradientOptions, build)]
"""


def test_a_rate_that_falls_from_the_first_step_on_has_to_be_trained_anew(folder):
    engine, made = engine_with(folder / "falling.py", FALLING), pipeline(folder)
    made["trainer"] = {"type": "falling", "length": "10 steps", "batch_size": 48}
    run = engine.run(made, output=folder / "run").path
    before = tree(run)
    with pytest.raises(textgen.RunMismatchError) as caught:
        engine.run(made, {"trainer.length": "20 steps"}, output=run)
    assert caught.value.differences == (Difference("trainer.length", "10 steps", "20 steps"),)
    assert "trained anew" in caught.value.reason
    assert not list(run.glob("checkpoints/*"))
    assert tree(run) == before
