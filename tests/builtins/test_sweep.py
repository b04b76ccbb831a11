"""The command sweep."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
from commands import running

import textgen
from textgen import UsageError
from textgen_builtins.commands.sweep import parse_trials

PLUGIN = Path(__file__).with_name("tally_plugin.py")
TEXT = "the clock of the hall struck the hour, and the time traveller smiled.\n" * 8


PIPELINE = """
device = "cpu"
corpus = {type = "file", path = "text.txt"}
tokenizer = {type = "char"}
data = {window_length = 8}
model = {type = "pairs"}
trainer = {type = "tally", steps = 6, log = "steps.log"}
checkpoint = {seconds = 0.0}
generate = {max_new_tokens = 5}
"""


@pytest.fixture
def folder(tmp_path):
    """With a pipeline."""
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "p.toml").write_text(PIPELINE)
    return tmp_path


@pytest.fixture
def sweep(textgen, folder):
    def run(*arguments):
        return textgen("--plugin", PLUGIN, "sweep", "p.toml", *arguments, cwd=folder)

    return run


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("1e-3,3e-3", [0.001, 0.003]),
        ("gru, lstm", ["gru", "lstm"]),
        ("[1, 2],[3]", [[1, 2], [3]]),
        ('"a,b",\'c,"\'', ["a,b", 'c,"']),
        ("{a = 1, b = 2},3", [{"a": 1, "b": 2}, 3]),
    ],
)
def test_values_are_toml_between_commas(given, values):
    trials = parse_trials([f" trainer.x ={given}"])
    assert [trial.settings for trial in trials] == [{"trainer.x": value} for value in values]


def test_all_faults_of_settings_at_once():
    with pytest.raises(UsageError) as caught:
        parse_trials(["x", "a=1,1", "c=[1", "output=a,b"])
    for said in (
        "expected KEY=VALUE,VALUE as in trainer.learning_rate=1e-3,3e-3, given 'x'",
        "a: expected values that differ between commas, given '1,1'",
        "c: not a TOML",
        "output: each trial has its own",
    ):
        assert said in str(caught.value)
    with pytest.raises(UsageError, match=r"125,000 trials, and 1,000 at most are run"):
        parse_trials([f"{key}={','.join(map(str, range(50)))}" for key in "abc"])


def test_names_are_safe_and_tell_trials_apart():
    given = ["a.size=1,1.5", "b.size=2", 'stop=["a","b"],"a b","../../etc"', f"long={'x' * 300}"]
    names = [trial.name for trial in parse_trials(given)]
    assert len(set(names)) == 6
    assert all(re.fullmatch(r"[\w.+,=~-]{1,90}", name, re.ASCII) for name in names)
    assert {trial.name for trial in parse_trials(reversed(given))} == set(names), "in any order"
    alike = [trial.name for trial in parse_trials(["generate.prompt=the,The,THE,the."])]
    assert len({name.casefold().rstrip(".") for name in alike}) == 4, "on systems that ignore case"


def test_every_pipeline_is_checked_before_any_starts(sweep, folder):
    refused = sweep("--set=trainer.steps=3,x", "--set=trainer.tims=1")
    assert refused.code == 2
    assert "trainer.tims: unknown key" in refused.stderr
    assert "in the trial steps=3,tims=1" in refused.stderr
    assert not (folder / "runs").exists()


def test_a_failed_trial_does_not_end_the_others_and_the_best_comes_first(sweep, folder):
    arguments = ("--set=trainer.fails_at=3,99", "--set=model.added=5.0,0.1", "--output", "s")
    done = sweep(*arguments, "--json")
    assert done.code == 1
    trials = {row["name"]: row for row in json.loads(done.stdout)["trials"]}
    assert sum(bool(row["error"]) for row in trials.values()) == 2
    assert "the tally sheet is full" in trials["added=5.0,fails_at=3"]["error"]
    assert "textgen: error: added=5.0,fails_at=3: " in done.stderr
    for name, row in trials.items():
        alone = textgen.summarize(folder / "s" / name)
        assert (row["best_loss"], row["step"]) == (alone.best_loss, alone.step)

    log = (folder / "steps.log").read_text()
    table = sweep("--set=trainer.fails_at=99", "--set=model.added=5.0,0.1", "--output", "s")
    assert table.code == 0
    assert (folder / "steps.log").read_text() == log, "nothing is trained twice"
    assert re.match(
        r"added +loss +best step +seconds +status\n0\.1 .*finished\n5\.0 ", table.stdout
    )
    assert "the best: textgen generate s/added=0.1,fails_at=99" in table.stdout


def test_ctrl_c_stops_with_a_checkpoint(folder):
    arguments = ("--set=trainer.steps=99", "--set=trainer.pause=0.1", "--set=seed=1,2")
    log = folder / "steps.log"
    with running("--plugin", PLUGIN, "sweep", "p.toml", *arguments, folder=folder) as sweep:
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            assert sweep.process.poll() is None
            time.sleep(0.01)
        sweep.process.send_signal(signal.SIGINT)
        code, _, said = sweep.end()
    assert code == 130
    assert "stopped in trial 1 of 2; the same command resumes" in said
    (run,) = (folder / "runs/p-sweep").iterdir()
    summary = textgen.summarize(run)
    assert (summary.status, summary.cause, summary.steps) == ("stopped", "interrupted", 99)


def test_trials_of_different_tokens_are_ranked_by_bits_per_character(sweep, folder):
    arguments = ("--set=tokenizer.letters_only=true,false", "--output", "s")
    sweep(*arguments)
    for name, bits in (("letters_only=true", 2.0), ("letters_only=false", 1.0)):
        row = {"step": 6, "validation_loss": 1.0, "bits_per_character": bits}
        (folder / "s" / name / "metrics.jsonl").write_text(json.dumps(row))
    table = sweep(*arguments).stdout
    assert re.match(r"letters_only +bits/char .*\nfalse +1\.000 .*\ntrue +2\.000 ", table)
    assert "note: the runs have different tokens: compare their bits per character" in table
