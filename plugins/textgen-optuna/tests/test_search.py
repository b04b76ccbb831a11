"""Searches through the command, with a model of counts that needs no torch."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from textgen_optuna.space import Choices, Range, read_space, toml

import textgen

PLUGIN = Path(__file__).with_name("tally_plugin.py")
WIDE = Path(__file__).with_name("wide_plugin.py")
PIPELINE = """
device = "cpu"
corpus = {type = "file", path = "text.txt"}
tokenizer = {type = "char"}
data = {window_length = 8}
model = {type = "pairs"}
trainer = {type = "tally", steps = 6, log = "steps.log"}
checkpoint = {seconds = 0}
generate = {max_new_tokens = 5}
"""
SPACE = """
[model]
added = { low = 0.01, high = 10.0, log = true }
[trainer]
times = { low = 1, high = 9, step = 2 }
pause = [0.0, 0.001]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text.txt").write_text(
        "the clock of the hall struck the hour, and the time traveller smiled.\n" * 8
    )
    (tmp_path / "p.toml").write_text(PIPELINE)
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path


def start(folder, *arguments):
    plugins = ["--plugin", str(PLUGIN), "--plugin", str(WIDE)]
    command = [
        sys.executable,
        "-m",
        "textgen",
        *plugins,
        "optuna",
        "p.toml",
        "space.toml",
        *arguments,
    ]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def search(folder, *arguments):
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_space_is_read_and_faults_are_said_at_once(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        "trainer.learning_rate = {low = 1e-4, high = 1e-2, log = true}\nmodel.cell = "
        '["gru", "lstm"]\n'
        '"sampler.0.k" = {low = 1, high = 9, step = 2}\nstops = [["a", "b"], ["c"]]\n'
    )
    assert read_space(str(path)) == [
        Range("trainer.learning_rate", 1e-4, 1e-2, log=True),
        Choices("model.cell", ("gru", "lstm")),
        Range("sampler.0.k", 1, 9, step=2),
        Choices("stops", (["a", "b"], ["c"])),
    ]
    path.write_text(
        "a = 3\nb = {low = 2, high = 1}\nc = []\nd = {low = 1}\ne = "
        "{low = 0, high = 1, log = true}\n"
        "f = {low = 1, high = 5, step = 0.5}\ng = {low = 1, high = 2, steps = 1}\nh = [1, 1]\n"
        "i = {low = nan, high = 1}\n"
    )
    with pytest.raises(textgen.UsageError) as caught:
        read_space(str(path))
    assert [fault.path for fault in caught.value.faults] == list("abcdefghi")
    for text in ("", "a = "):
        path.write_text(text)
        with pytest.raises(textgen.UsageError):
            read_space(str(path))
    assert [toml(value) for value in (1e-05, True, 'a"b', ["x", 1])] == [
        "1e-05",
        "true",
        '"a\\"b"',
        '["x", 1]',
    ]


def test_a_search_finds_the_best_and_says_how_to_run_it(folder):
    code, out, err = search(folder, "--trials", "12", "--json")
    assert code == 0, err
    found = json.loads(out)
    trials = found["trials"]
    assert len(trials) == 12
    best = trials[0]
    assert best["status"] == "finished"
    assert best["loss"] == min(trial["loss"] for trial in trials if trial["status"] == "finished")
    assert len({json.dumps(trial["settings"]) for trial in trials}) == 12, (
        "each suggestion is another"
    )
    pruned = [trial for trial in trials if trial["status"] == "pruned"]
    assert pruned
    for trial in pruned:
        summary = textgen.summarize(folder / "runs/p-optuna" / trial["name"])
        assert summary.status == "finished"
        assert summary.cause.startswith("Pruning: others had a lower loss at evaluation")
        assert summary.step == trial["evaluations"] < 6
    words = shlex.split(found["best_command"])
    again = subprocess.run(
        [sys.executable, "-m", "textgen", "--plugin", str(PLUGIN), *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    assert "skipped: " in again.stderr
    assert "--output runs/p-optuna/trial-" in found["best_command"]
    code, out, _ = search(folder, "--trials", "12")
    assert (code, out.splitlines()[0].split()) == (
        0,
        ["trial", "model.added", "trainer.times", "trainer.pause", "loss", "evaluations", "status"],
    )
    assert len((folder / "steps.log").read_text().splitlines()) == sum(
        trial["evaluations"] for trial in trials
    )


def test_killed_searches_resume_and_suggest_the_same(folder, tmp_path_factory):
    (folder / "p.toml").write_text(PIPELINE.replace("steps = 6", "steps = 20"))
    (folder / "space.toml").write_text(SPACE.replace("[0.0, 0.001]", "[0.02]"))
    code, out, err = search(folder, "--trials", "4", "--json", "--no-pruning", "--output", "whole")
    assert code == 0, err
    log = folder / "steps.log"
    log.unlink()
    for number, stop in ((8, signal.SIGKILL), (30, signal.SIGINT)):
        process = start(folder, "--trials", "4", "--no-pruning", "--output", "broken")
        while not (log.exists() and len(log.read_text().splitlines()) >= number):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(stop)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (-9 if stop == signal.SIGKILL else 130), said
    code, again, err = search(
        folder, "--trials", "4", "--json", "--no-pruning", "--output", "broken"
    )
    assert code == 0, err

    def figures(text):
        keys = ("name", "settings", "status", "loss", "evaluations")
        return [{key: trial[key] for key in keys} for trial in json.loads(text)["trials"]]

    assert figures(again) == figures(out)
    steps = Counter(log.read_text().splitlines())
    assert (len(steps), min(steps.values())) == (20, 4), "each trial did each of its steps"
    assert steps.total() <= 81, "only the step that was being done at the kill is done again"


def test_two_processes_share_a_study(folder):
    (folder / "space.toml").write_text(SPACE.replace("[0.0, 0.001]", "[0.03]"))
    processes = [start(folder, "--trials", "6", "--no-pruning", "--json") for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    trials = max(
        (json.loads(out)["trials"] for out, _ in outputs),
        key=lambda t: sum(r["status"] == "finished" for r in t),
    )
    assert sorted(trial["name"] for trial in trials) == [f"trial-{n:04d}" for n in range(6)]
    assert len((folder / "steps.log").read_text().splitlines()) == 36, "no trial was done twice"
    assert all(err.count("textgen: trial") >= 1 for _, err in outputs), "both did some"


def test_a_trial_that_fails_is_reported_and_does_not_end_the_search(folder):
    (folder / "space.toml").write_text(
        "[trainer]\nfails_at = [2, 99]\ntimes = {low = 1, high = 99}\n"
    )
    code, out, err = search(
        folder, "--trials", "4", "--json", "--sampler", "random", "--no-pruning"
    )
    assert code == 1
    statuses = [trial["status"] for trial in json.loads(out)["trials"]]
    assert sorted(set(statuses)) == ["failed", "finished"]
    assert "the tally sheet is full" in err
    assert "Traceback" not in err


def test_what_cannot_be_searched_is_refused_before_anything_starts(folder):
    (folder / "space.toml").write_text(
        "[trainer]\nsteps = [1, 2]\ntims = [1, 2]\n[model]\nadded = ['x', 'y']\n"
    )
    code, _, err = search(folder)
    assert code == 2
    assert "trainer.tims: unknown key" in err
    assert "model.added: expected" in err
    (folder / "space.toml").write_text("model.added = [1.0, 2.0]\n")
    assert search(folder, "--trials", "1")[0] == 0
    (folder / "space.toml").write_text("model.added = [1.0, 3.0]\n")
    code, _, err = search(folder, "--trials", "2")
    assert (code, "holds a study of another search space" in err) == (2, True)
    (folder / "space.toml").write_text("model.added = [1.0, 2.0]\n")
    (folder / "p.toml").write_text(PIPELINE.replace("steps = 6", "steps = 7"))
    code, _, err = search(folder, "--trials", "2")
    assert (code, "holds a study of another pipeline" in err) == (2, True)
    (folder / "p.toml").write_text(
        PIPELINE.replace("window_length = 8", "window_length = 8, validation = 0")
    )
    code, _, err = search(folder, "--output", "other")
    assert (code, "nothing is held out" in err) == (2, True)


def test_the_pipeline_and_the_space_of_this_package_go_together():
    from textgen_optuna.search import Search

    package = Path(__file__).parents[1]
    space = read_space(str(package / "space.toml"))
    search = Search(
        engine=textgen.Engine(), pipeline=str(package / "pipeline.toml"), space=space, folder=Path()
    )
    assert search.check().name == "pipeline"


def test_a_search_of_tokenizers_goes_by_bits_per_character(folder):
    """Four tokens for each character would have the better loss, in nats per token."""
    (folder / "space.toml").write_text(
        'tokenizer.type = ["char", "wide"]\nmodel.added = [0.01, 1.0]\n'
    )
    arguments = ("--trials", "12", "--sampler", "random")
    code, out, err = search(folder, *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["by"] == "bits_per_character"
    finished = [trial for trial in found["trials"] if trial["status"] == "finished"]
    best = {trial["settings"]["tokenizer.type"]: trial for trial in reversed(finished)}
    assert best["wide"]["loss"] < best["char"]["loss"]
    assert finished[0] == best["char"]
    bits = [trial["bits_per_character"] for trial in finished]
    assert bits == sorted(bits)
    for trial in finished:
        summary = textgen.summarize(folder / "runs/p-optuna" / trial["name"])
        (row,) = [row for row in summary.metrics() if row["step"] == summary.best_step]
        assert (trial["loss"], trial["bits_per_character"]) == (
            summary.best_loss,
            row["bits_per_character"],
        )
    pruned = [trial for trial in found["trials"] if trial["status"] == "pruned"]
    for trial in pruned:
        assert trial["settings"]["tokenizer.type"] == "wide"
        cause = textgen.summarize(folder / "runs/p-optuna" / trial["name"]).cause
        assert cause.startswith("Pruning: others had fewer bits per character at evaluation")
    assert pruned
    _, out, err = search(folder, *arguments)
    assert "bits/char" in out.splitlines()[0]
    assert err == ""


def test_a_trial_that_leaves_much_of_the_text_out_is_named(folder):
    (folder / "space.toml").write_text("tokenizer.min_frequency = [1, 40]\n")
    code, _, err = search(folder, "--trials", "4", "--sampler", "random", "--quiet")
    assert code == 0
    assert "textgen: note: some tokens stand for text outside the vocabulary (" in err
    assert ": these trials cannot be compared with the others" in err
