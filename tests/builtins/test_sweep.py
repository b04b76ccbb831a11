"""The command sweep."""

from __future__ import annotations

import json
import re
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import killed_sweep
import pytest
import tomli_w
from commands import running

import textgen
from textgen import UsageError
from textgen_builtins.commands.compared import ranked, read_run
from textgen_builtins.commands.processes import Command, Sweep
from textgen_builtins.commands.results import as_text, results
from textgen_builtins.commands.sweep import Progress
from textgen_builtins.commands.trials import choose_trials, parse_settings

PLUGIN = Path(__file__).with_name("tally_plugin.py")
TEXT = "the clock of the hall struck the hour, and the time traveller smiled.\n" * 8


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    tables = {
        "device": "cpu",
        "corpus": {"type": "file", "path": "text.txt"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 8},
        "model": {"type": "pairs"},
        "trainer": {"type": "tally", "steps": 6, "log": "steps.log"},
        "checkpoint": {"seconds": 0.0},
        "generate": {"max_new_tokens": 5},
    }
    (tmp_path / "p.toml").write_bytes(tomli_w.dumps(tables).encode())
    return tmp_path / "p.toml"


@pytest.fixture
def sweep(textgen: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def run(*arguments: str) -> Any:
        return textgen("--plugin", PLUGIN, "sweep", "p.toml", *arguments, cwd=tmp_path)

    return run


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("1e-3,3e-3", (0.001, 0.003)),
        ("gru, lstm", ("gru", "lstm")),
        ("[1, 2],[3]", ([1, 2], [3])),
        ('"a,b",\'c,"\'', ("a,b", 'c,"')),
        ("{a = 1, b = 2},3", ({"a": 1, "b": 2}, 3)),
        (r'"a\",b",c', ('a",b', "c")),
        ("don't,do", ("don't", "do")),
        ("true", (True,)),
    ],
)
def test_values_are_toml_between_commas(given: str, values: tuple[Any, ...]) -> None:
    (setting,) = parse_settings([f" trainer.x ={given}"])
    assert (setting.key, setting.values) == ("trainer.x", values)


def test_all_faults_of_settings_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(["x", "a=1,1", "b=1,,2", "c=[1", "name=a,b"])
    assert [fault.path for fault in caught.value.faults] == ["c", "", "a", "b", "name"] or len(
        caught.value.faults
    ) == 5
    for said in (
        "expected KEY=VALUE,VALUE",
        "the value 1 is given twice",
        "before and after each comma",
        "not a TOML",
    ):
        assert said in str(caught.value)


def test_names_are_safe_and_tell_trials_apart() -> None:
    given = [
        "a.size=1,1.5",
        "b.size=2",
        'model.type=rnn,"1",1',
        'stop=["a","b"],"a b",../../etc',
        f"long={'x' * 300}",
    ]
    trials = choose_trials(parse_settings(given), None, 0)
    names = [trial.name for trial in trials]
    assert len(set(names)) == 18
    assert all(
        re.fullmatch(r"[\w.+,=~-]{1,160}", name, re.ASCII) and "/" not in name for name in names
    )
    assert names[0].startswith("a.size=1,b.size=2,")
    other_way = choose_trials(parse_settings(reversed(given)), None, 0)
    assert {trial.name for trial in other_way} == set(names), (
        "in whatever order the settings are given"
    )


def test_a_random_part_grows() -> None:
    settings = parse_settings(["a=1,2,3,4,5", "b=1,2,3,4,5"])
    four, nine = choose_trials(settings, 4, 7), choose_trials(settings, 9, 7)
    assert nine[:4] == four
    assert len({trial.name for trial in nine}) == 9
    assert choose_trials(settings, 4, 8) != four
    assert len(choose_trials(settings, 99, 0)) == 25
    with pytest.raises(UsageError, match=r"125,000 trials.* --trials N"):
        choose_trials(
            parse_settings([f"{key}={','.join(map(str, range(50)))}" for key in "abc"]), None, 0
        )


def test_every_pipeline_is_checked_before_any_starts(
    sweep: Callable[..., Any], pipeline: Path, tmp_path: Path
) -> None:
    refused = sweep(
        "--set", "trainer.steps=3,x", "--set", "model.added=0.1,y", "--set", "trainer.tims=1"
    )
    assert refused.code == 2
    for said in (
        "trainer.tims: unknown key",
        'trainer.steps: expected an integer, given "x"',
        "model.added",
    ):
        assert said in refused.stderr
    assert refused.stderr.count("expected") == 2, "each fault is said once"
    assert not (tmp_path / "runs").exists()


def test_an_error_of_several_lines_is_told_whole(sweep: Callable[..., Any], pipeline: Path) -> None:
    arguments = ("--set", "model.added=0.1", "--output", "s")
    assert sweep(*arguments).code == 0
    pipeline.write_text(pipeline.read_text().replace("steps = 6", "steps = 5"))
    again = sweep(*arguments)
    assert again.code == 1
    (line,) = (
        line for line in again.stderr.splitlines() if line.startswith("textgen: error: added=0.1")
    )
    assert "trainer.steps: 6 before, 5 now" in line


def test_a_failed_trial_does_not_end_the_others(
    sweep: Callable[..., Any], pipeline: Path, tmp_path: Path
) -> None:
    arguments = (
        "--set",
        "trainer.fails_at=3,99",
        "--set",
        "model.added=0.1,5.0",
        "--jobs",
        "2",
        "--output",
        "s",
    )
    done = sweep(*arguments, "--json")
    assert done.code == 1
    found = json.loads(done.stdout)
    assert [row["status"] for row in found["trials"]] == ["finished"] * 2 + ["failed"] * 2
    assert all("the tally sheet is full" in row["error"] for row in found["trials"][2:])
    best, other = found["trials"][:2]
    assert (best["settings"]["model.added"], best["step"]) == (0.1, 6)
    assert best["loss"] < other["loss"]
    assert found["effects"][0]["key"] == "model.added"
    assert found["effects"][0]["spread"] == pytest.approx(other["loss"] - best["loss"])
    assert [mean["value"] for mean in found["effects"][0]["means"]] == [0.1, 5.0]
    alone = textgen.summarize(tmp_path / "s" / best["name"])
    assert (best["loss"], best["step"], best["seconds"]) == (
        alone.best_loss,
        alone.step,
        alone.seconds,
    )
    assert textgen.summarize(tmp_path / "s" / found["trials"][3]["name"]).cause.startswith(
        "ContractError: plugin"
    )
    assert "the tally sheet is full" in done.stderr
    trials = choose_trials(parse_settings(["trainer.fails_at=99", "model.added=5.0,0.1"]), None, 0)
    table = as_text(results(trials, tmp_path / "s", {}), trials)
    assert re.match(r"added +loss +step +of +seconds\n0\.1 .*\n5\.0 ", table)
    assert "0.1 was the best added" in table
    assert f"the best: textgen generate {tmp_path}/s/added=0.1,fails_at=99" in table


def test_the_rest_is_estimated_once_a_trial_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = trials = choose_trials(parse_settings(["model.added=1,2,3"]), None, 0)
    command, running = Command("p.toml", tmp_path), {second.name: (second, MagicMock())}
    progress = Progress(trials, command, 1, begun=time.monotonic() - 600)
    progress.begin()
    progress.tell(Sweep(command, deque([third]), running, finished=[first]))
    assert "1 of 3 done; 1 running; about 20 min to go" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="the processes of a sweep are found in /proc"
)
def test_a_sweep_killed_in_the_middle_trains_nothing_twice(pipeline: Path, tmp_path: Path) -> None:
    settings = ["model.added=0.1,0.5,1,2", "trainer.times=1"]
    arguments = killed_sweep.command(pipeline, settings, ["--plugin", str(PLUGIN)])
    runs, log = tmp_path / "runs/p-sweep", tmp_path / "steps.log"

    def is_time() -> bool:
        return log.exists() and len(log.read_text().splitlines()) >= 15

    (tmp_path / "hold").touch()
    killed_sweep.kill_in_the_middle(arguments, tmp_path, is_time)
    (tmp_path / "hold").unlink()
    before = killed_sweep.finished(runs)
    assert 1 <= len(before) < 4
    found = killed_sweep.run_again(arguments, tmp_path)
    assert [row["status"] for row in found["trials"]] == ["finished"] * 4
    assert before.items() <= killed_sweep.finished(runs).items(), (
        "a finished trial was trained again"
    )
    steps = log.read_text().splitlines()
    again = [step for step in set(steps) if steps.count(step) > 1]
    assert len(set(steps)) == 24
    assert len(again) <= 2, "only what was being done when the kill came"
    plugins = textgen.PluginSet.discover()
    plugins.register_file(PLUGIN)
    engine = textgen.Engine(plugins)
    for row in found["trials"]:
        alone = textgen.summarize(
            engine.run(pipeline, row["settings"], output=tmp_path / "alone" / row["name"]).path
        )
        assert (row["loss"], row["best_step"], row["step"]) == (
            alone.best_loss,
            alone.best_step,
            alone.step,
        )


def test_ctrl_c_stops_all_with_checkpoints(pipeline: Path, tmp_path: Path) -> None:
    settings = ["trainer.pause=0.1", "trainer.steps=99", "model.added=1,2"]
    arguments = killed_sweep.command(pipeline, settings, ["--plugin", str(PLUGIN)])
    log = tmp_path / "steps.log"
    with running(*arguments[3:], folder=tmp_path) as sweep:
        while (
            len(
                {line.split()[0] for line in (log.read_text().splitlines() if log.exists() else ())}
            )
            < 2
        ):
            assert sweep.process.poll() is None
            time.sleep(0.01)
        sweep.process.send_signal(signal.SIGINT)
        code, _, said = sweep.end()
    assert code == 130
    assert "stopped; 0 of 2 trials finished; the same command resumes" in said
    for path in (tmp_path / "runs/p-sweep").glob("*/run.json"):
        summary = textgen.summarize(path.parent)
        assert (summary.status, summary.cause, summary.steps) == ("stopped", "interrupted", 99)
        assert summary.step == max(
            int(name.name[5:]) for name in path.parent.glob("checkpoints/step-*")
        )


def test_trials_of_different_tokens_are_ranked_by_bits_per_character(
    pipeline: Path, tmp_path: Path
) -> None:
    plugins = textgen.PluginSet.discover()
    plugins.register_file(PLUGIN)
    trials = choose_trials(
        parse_settings(["tokenizer.letters_only=true,false", "tokenizer.unicode_form=NFC"]), None, 0
    )
    runs = [
        textgen.Engine(plugins).run(pipeline, trial.settings, output=tmp_path / trial.name)
        for trial in trials
    ]
    losses = [textgen.summarize(run.path).best_loss for run in runs if run.path]
    figures = (
        [2.0, 1.0] if losses[0] < losses[1] else [1.0, 2.0]
    )  # the other way round, as for longer tokens
    for run, bits in zip(runs, figures, strict=True):
        assert run.path is not None
        row = {
            "step": textgen.summarize(run.path).best_step,
            "validation_loss": 1.0,
            "bits_per_character": bits,
        }
        (run.path / "metrics.jsonl").write_text(json.dumps(row))
    found = results(trials, tmp_path, {})
    assert (found.by, [result.bits_per_character for result in found.trials]) == (
        "bits_per_character",
        [1.0, 2.0],
    )
    best, other = ("true", "false") if figures[0] == 1.0 else ("false", "true")
    table = as_text(found, trials)
    assert re.match(
        rf"letters_only +bits/char +step +of +seconds\n{best} +1\.0000 .*\n{other} +2\.0000 ", table
    )
    assert "note: the runs have different tokens: compare their bits per character" in table
    assert re.search(
        rf"mean bits/char of each value\nletters_only +1\.0000 +{best}: 1\.0000, {other}: 2\.0000",
        table,
    )
    (first, _), (second, _) = ranked(
        [read_run(textgen.summarize(run.path), run.path.name) for run in runs if run.path]
    )
    assert (first, second) == (1.0, 2.0)
