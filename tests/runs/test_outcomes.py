"""What a run directory makes of the next run: trained, skipped, refused, overwritten."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_textgen
from small_run import TEXT, copied, tables, tree

import textgen


def test_what_an_observer_left_when_it_failed_is_in_nobodys_way(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    class Plugin:
        @textgen.hookimpl
        def textgen_observers(self) -> list[textgen.Component]:
            return [textgen.Component("hasty", textgen.NoOptions, self.build)]

        def build(self, config: Any, context: textgen.BuildContext) -> Any:
            assert context.directory is not None
            (context.directory / "notes.csv").write_text("step,loss")
            raise RuntimeError("no")

    plugins = textgen.PluginSet.discover()
    plugins.register(Plugin(), "hasty")
    with pytest.raises(textgen.ContractError, match="hasty"):
        textgen.Engine(plugins).run(tiny_pipeline(observer=[{"type": "hasty"}]))
    run = textgen.run(tiny_pipeline())
    assert run.outcome == "trained"
    assert (run.path / "notes.csv").read_text() == "step,loss"


def test_train(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = trained
    run = folder / "runs/p"
    assert done.returncode == 0, done.stderr
    assert "training on cpu" in done.stderr
    assert f"trained: {run}" in done.stderr
    files = ("pipeline.toml", "run.json", "tokenizer.json", "model.safetensors", "metrics.jsonl")
    assert {*files, "loss.svg"} <= {path.name for path in run.iterdir()}
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert f"step {record['best_step']} of {record['step']}, with" in done.stderr
    assert f"validation loss: {record['best_loss']:.3f}" in done.stderr
    assert done.stdout == f"{textgen.load(run).generate('Once', max_new_tokens=40)}\n"


def test_skip(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, first = trained
    before = tree(folder)
    done = run_textgen("run", "p.toml", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == first.stdout
    assert "training" not in done.stderr
    assert "skipped:" in done.stderr
    assert tree(folder) == before


def test_a_skipped_run_writes_as_the_pipeline_says_now(
    trained: tuple[Path, Any], folder: Path
) -> None:
    """Samplers do not shape the model, so they may change; then they must count."""
    run = copied(trained, folder)
    done = run_textgen("run", "p.toml", "--set", 'sampler=[{type="greedy"}]', folder=folder)
    greedy = textgen.load(run, sampler=[{"type": "greedy"}]).generate("Once", max_new_tokens=40)
    assert "skipped:" in done.stderr
    assert done.stdout == f"{greedy}\n"


def test_a_finished_run_whose_text_is_gone_is_skipped(folder: Path) -> None:
    first = run_textgen("run", "p.toml", folder=folder)
    (folder / "text.txt").unlink()
    done = run_textgen("run", "p.toml", folder=folder)
    assert (done.returncode, done.stdout) == (0, first.stdout)
    assert "skipped:" in done.stderr
    done = run_textgen("run", "p.toml", "--set", 'corpus.encoding="latin-1"', folder=folder)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "text.txt: cannot be read" in done.stderr
    assert done.stderr.endswith(
        "; the run is finished, and `textgen generate RUN` writes without the text\n"
    )


def test_a_key_that_decides_nothing_makes_no_other_run(
    trained: tuple[Path, Any], folder: Path
) -> None:
    copied(trained, folder)
    done = run_textgen("run", "p.toml", "--set", "data.window_stride=16", folder=folder)
    assert "skipped:" in done.stderr, done.stderr


def test_a_finished_run_keeps_the_checkpoint_to_train_on_from_alone(folder: Path) -> None:
    pipeline = tables(folder, "adamw", "shuffled")
    run = textgen.run(pipeline, {"trainer": {"warmup_steps": 0}}).path
    record = json.loads((run / "run.json").read_text())
    assert record["stable_steps"] < record["best_step"]
    (kept,) = run.glob("checkpoints/*")
    assert kept.name == f"step-{record['stable_steps']:06d}"
    constant = tables(folder, "sgd", "shuffled")
    run = textgen.run(constant, {"trainer.learning_rate": 6.0}, output=folder / "constant").path
    record = json.loads((run / "run.json").read_text())
    assert record["best_step"] < record["step"] == record["stable_steps"]
    last, best = (
        (run / f"checkpoints/step-{record[key]:06d}/model.safetensors").read_bytes()
        for key in ("step", "best_step")
    )
    assert len(list(run.glob("checkpoints/*"))) == 2
    assert best == (run / "model.safetensors").read_bytes() != last


def test_overwrite_and_another_output(trained: tuple[Path, Any], folder: Path) -> None:
    run = copied(trained, folder)
    before = tree(run)
    changed = ["--set", "trainer.length=1 epoch"]
    done = run_textgen("run", "p.toml", *changed, "--output", "other", folder=folder)
    assert (done.returncode, "trained:" in done.stderr) == (0, True)
    assert tree(run) == before
    done = run_textgen("run", "p.toml", *changed, "--overwrite", folder=folder)
    assert (done.returncode, "trained:" in done.stderr) == (0, True)
    assert tree(run)["model.safetensors"] == tree(folder / "other")["model.safetensors"]


@pytest.mark.fault(6)
@pytest.mark.parametrize(
    ("changes", "text", "code", "said"),
    [
        (["trainer.length=3 epochs", "model.layers=2"], TEXT, 2, ["2 epochs before, 3 epochs now"]),
        (
            ["model.layers=2"],
            TEXT,
            2,
            ["model.layers: 1 before, 2 now", "replace it with overwrite"],
        ),
        (["overwrite", "data.window_length=100000"], TEXT, 1, ["too short"]),
        ([], TEXT.replace("ravens", "eagles", 1), 2, ["corpus.sha256: "]),
        ([], TEXT + "!", 2, [f"corpus.characters: {len(TEXT)} before, {len(TEXT) + 1} now"]),
    ],
)
def test_what_is_refused_leaves_the_run_as_it_was(
    trained: tuple[Path, Any],
    folder: Path,
    changes: list[str],
    text: str,
    code: int,
    said: list[str],
) -> None:
    run = copied(trained, folder)
    before = tree(run)
    (folder / "text.txt").write_text(text)
    given = [("--overwrite",) if each == "overwrite" else ("--set", each) for each in changes]
    done = run_textgen("run", "p.toml", *(part for each in given for part in each), folder=folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert [phrase for phrase in said if phrase not in done.stderr] == []
    assert not re.search("[0-9a-f]{13}", done.stderr)
    assert tree(run) == before


def test_the_seed_decides(folder: Path) -> None:
    pipeline = tables(folder, "adamw", "shuffled")
    runs = [
        textgen.run({**pipeline, "seed": seed}, output=folder / str(number))
        for number, seed in enumerate([5, 5, 6])
    ]
    one, same, other = ((run.generator.model_id, run.generations) for run in runs)
    assert one == same
    assert one[0] != other[0]
    assert one[1][0].text != one[1][1].text
