"""Replacing a finished run: the old one stays loadable until the new one is finished."""

import json
import shutil
import signal
import subprocess
import sys
import warnings

import pytest
from commands import run_textgen, running, wait_for
from small_run import ENDLESS, PIPELINE, interrupt, tables, text_of, tree

import textgen


@pytest.mark.unix
def test_the_old_run_stays_loadable_until_the_new_one_is_finished(finished, folder):
    before, old = tree(finished), text_of(finished)
    with running(*ENDLESS, "--overwrite", folder=folder) as new:
        wait_for(new, ", step ")
        while_it_trains = run_textgen(
            "generate", "runs/p", "-p", "Once", "--no-echo", "--max-new-tokens", "30", folder=folder
        )
        new.process.send_signal(signal.SIGINT)
        code, _, stderr = new.end()
    assert (while_it_trains.returncode, while_it_trains.stdout) == (0, f"{old}\n")
    (warning,) = while_it_trains.stderr.splitlines()
    assert "the new run" in warning
    assert "is not finished" in warning
    assert code == 130
    assert "run it again, without --overwrite, to resume" in stderr
    assert before.items() <= tree(finished).items()
    with pytest.warns(UserWarning):
        assert text_of(finished) == old
    with running(*ENDLESS, folder=folder) as new:  # it goes on, and says so before it trains
        assert "resuming after step " in wait_for(new, "resuming")
        wait_for(new, ", step ")
        new.process.kill()
    with pytest.warns(UserWarning):
        assert text_of(finished) == old


def test_an_interrupted_overwriting_run_ends_as_if_never_interrupted(finished, folder):
    (finished / "mine.txt").write_text("not a run's")
    pipeline = tables(folder, "adamw")
    interrupt(6, pipeline, output=finished, overwrite=True)
    assert textgen.run(pipeline, output=finished).outcome == "resumed"
    whole = textgen.run(pipeline, output=folder / "whole")
    assert text_of(finished) == text_of(whole.path)
    assert not (finished / ".next-run").exists()
    assert (finished / "mine.txt").exists()


def test_what_the_finished_run_can_do_is_done_though_another_was_interrupted(folder):
    pipeline, path = tables(folder, "adamw"), folder / "own"
    textgen.run(pipeline, output=path)
    interrupt(6, {**pipeline, "seed": 9}, output=path, overwrite=True)
    with pytest.warns(UserWarning):
        assert textgen.run(pipeline, output=path).outcome == "skipped"
    longer = {**pipeline, "trainer": pipeline["trainer"] | {"length": "99 epochs"}}
    with pytest.raises(textgen.RunMismatchError) as caught:
        textgen.run(longer, output=path)
    keys = {each.key for each in caught.value.differences}
    assert "seed" in keys, "the place of that run is taken"
    text = folder / "text.txt"
    for added in ("Xanadu had none.\n", "Yokohama had none.\n"):
        text.write_text(text.read_text() + added * 9)
        interrupt(6, pipeline, output=path, update=True)
    updated = textgen.run(pipeline, output=path, update=True)
    assert updated.generator.tokenizer.encode("XY").size == 2


@pytest.mark.fault(7)
def test_an_overwriting_run_that_fails_at_once_leaves_everything_as_it_was(finished, folder):
    before = tree(finished)
    spoilt = PIPELINE.replace('"adamw"', '"sgd"\nlearning_rate = 3e38\nmax_grad_norm = 0')
    (folder / "spoilt.toml").write_text(spoilt)
    done = run_textgen("run", "spoilt.toml", "--output", "runs/p", "--overwrite", folder=folder)
    assert done.returncode == 1
    assert "the loss is inf at step 2 with learning rate 3e+38" in done.stderr
    assert tree(finished) == before


def test_a_new_run_that_is_not_in_place_yet_is_the_one_that_is_used(finished, folder):
    """A process was killed once the new run was finished, and while its files were given their
    names.
    """
    new = textgen.run(tables(folder), output=folder / "new").path
    shutil.copytree(new, finished / ".next-run")
    for name in ("none", "run.json", "model.safetensors"):
        (finished / name).unlink(missing_ok=True)
        assert text_of(finished) == text_of(new)
        assert not any(textgen.verify(finished).values())
        assert textgen.summarize(finished).status == "finished"
        done = run_textgen("evaluate", "runs/p", "text.txt", folder=folder)
        assert done.stdout.startswith("loss "), done.stderr
    assert textgen.run(tables(folder), output=finished).outcome == "skipped"
    assert tree(finished) == tree(new)


@pytest.mark.slow
def test_every_load_gets_the_old_run_or_a_new_one(folder):
    """While another process replaces it again and again."""
    pipelines = [tables(folder, "adamw"), tables(folder)]
    texts = {
        text_of(textgen.run(each, output=folder / str(n)).path) for n, each in enumerate(pipelines)
    }
    run = textgen.run(pipelines[0], output=folder / "run").path
    script = """
import itertools, json, sys, textgen
for each in itertools.cycle(json.loads(sys.argv[1])):
    textgen.run(each, output="run", overwrite=True)
"""
    command = [sys.executable, "-c", script, json.dumps(pipelines)]
    seen = set()
    with subprocess.Popen(command, cwd=folder) as replacing, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the new run is not finished
        try:
            while replacing.poll() is None and seen != texts:
                seen.add(text_of(run))
        finally:
            replacing.kill()
    assert seen == texts
