"""What a run directory makes of the next run: trained, skipped, refused, overwritten."""

import re
import shlex

import pytest
from commands import run_textgen
from components import engine_of
from raising import raises
from small_run import TEXT, record_of, tables, tree

import textgen


def test_what_an_observer_left_when_it_failed_is_in_nobodys_way(tiny_pipeline):
    def build(context):
        (context.directory / "notes.csv").write_text("step,loss")
        raise RuntimeError("no")

    with raises(textgen.ContractError, kind="observer", component="odd"):
        engine_of(observer=build).run(tiny_pipeline(observer=[{"type": "odd"}]))
    run = textgen.run(tiny_pipeline())
    assert run.outcome == "trained"
    assert (run.path / "notes.csv").read_text() == "step,loss"


def test_a_chain_may_change_and_one_that_fails_leaves_a_finished_run_as_it_was(tiny_pipeline):
    """Samplers do not shape the model."""
    tables = tiny_pipeline()
    run = textgen.run(tables).path
    before, engine = tree(run), engine_of(sampler=lambda context: lambda logits, history: None)
    with raises(textgen.ContractError, kind="sampler", component="odd"):
        engine.run({**tables, "sampler": [{"type": "odd"}]})
    assert tree(run) == before
    changed = {"generate": {"max_new_tokens": 5}, "sampler": [{"type": "greedy"}]}
    again = textgen.run({**tables, **changed})
    assert again.outcome == "skipped"
    assert again.generations == (textgen.load(run).generate(),)
    assert again.generations[0].text == again.generator.generate(temperature=0).text
    assert len(again.generations[0].tokens) == 5


def test_a_finished_run_whose_text_is_gone_writes_without_it(folder):
    run_textgen("run", "p.toml", folder=folder)
    (folder / "text.txt").unlink()
    done = run_textgen("run", "p.toml", folder=folder)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "text.txt: cannot be read" in done.stderr
    assert done.stderr.endswith(
        "; the run is finished, and `textgen generate RUN` writes without the text\n"
    )


def test_a_finished_run_keeps_the_checkpoint_to_train_on_from_alone(folder):
    made = tables(folder, "adamw")
    run = textgen.run(made, {"trainer": {"warmup_steps": 0}}, output=folder / "run").path
    record = record_of(run)
    assert record["steps_before_decay"] < record["best_step"]
    (kept,) = run.glob("checkpoints/*")
    assert kept.name == f"step-{record['steps_before_decay']:06d}"


@pytest.mark.fault(6)
@pytest.mark.parametrize(
    ("options", "text", "code", "said"),
    [
        (
            "--set 'trainer.length=3 epochs' --set model.layers=2",
            TEXT,
            2,
            "2 epochs before, 3 epochs now",
        ),
        ("--set model.layers=2", TEXT, 2, "model.layers: 1 before, 2 now"),
        ("--overwrite --set data.window_length=100000", TEXT, 1, "too short"),
        ("", TEXT.replace("ravens", "eagles", 1), 2, "has changed; --update trains"),
    ],
)
def test_what_is_refused_leaves_the_run_as_it_was(finished, folder, options, text, code, said):
    before = tree(finished)
    (folder / "text.txt").write_text(text)
    done = run_textgen("run", "p.toml", *shlex.split(options), folder=folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert not re.search("[0-9a-f]{13}", done.stderr)
    assert tree(finished) == before
