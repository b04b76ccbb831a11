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
    assert done.returncode == 0, done.stderr
    assert "training on cpu" in done.stderr
    assert f"trained: {folder / 'runs/p'}" in done.stderr
    written = {path.name for path in (folder / "runs/p").iterdir() if not path.name.startswith(".")}
    assert {
        "pipeline.toml",
        "run.json",
        "tokenizer.json",
        "model.safetensors",
        "metrics.jsonl",
        "loss.svg",
    } <= written
    assert "tokens.bin" not in written
    record = json.loads((folder / "runs/p/run.json").read_text())
    assert record["status"] == "finished"
    assert f"step {record['best_step']} of {record['step']}, with" in done.stderr
    assert f"validation loss: {record['best_loss']:.3f}" in done.stderr


def test_stdout_holds_the_text_alone(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = trained
    generation = textgen.load(folder / "runs/p").generate("Once", max_new_tokens=40)
    assert len(generation.text) == 40
    assert done.stdout == f"{generation}\n"


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
        run / f"checkpoints/step-{record[key]:06d}/model.safetensors"
        for key in ("step", "best_step")
    )
    assert len(list(run.glob("checkpoints/*"))) == 2
    assert best.samefile(run / "model.safetensors")
    assert not last.samefile(run / "model.safetensors")


@pytest.mark.fault(6)
def test_refuse(trained: tuple[Path, Any], folder: Path) -> None:
    run = copied(trained, folder)
    before = tree(run)
    done = run_textgen(
        "run",
        "p.toml",
        "--set",
        "trainer.length=3 epochs",
        "--set",
        "model.layers=2",
        folder=folder,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    for phrase in (
        "trainer.length: 2 epochs before, 3 epochs now",
        "model.layers: 1 before, 2 now",
        "replace it with overwrite",
        "choose another output",
    ):
        assert phrase in done.stderr
    assert tree(run) == before

    (folder / "text.txt").write_text(TEXT + "Once more.")
    done = run_textgen("run", "p.toml", folder=folder)
    assert done.returncode == 2
    assert "corpus.sha256: " in done.stderr
    assert f"corpus.characters: {len(TEXT)} before, {len(TEXT) + 10} now" in done.stderr
    assert not re.search("[0-9a-f]{13}", done.stderr)
    assert tree(run) == before

    (folder / "text.txt").write_text(TEXT.replace("ravens", "eagles", 1))
    done = run_textgen("run", "p.toml", folder=folder)
    assert "corpus.sha256: " in done.stderr
    assert "corpus.characters" not in done.stderr  # as many as before


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


def test_overwrite_destroys_nothing_when_the_new_run_cannot_start(
    trained: tuple[Path, Any], folder: Path
) -> None:
    run = copied(trained, folder)
    before = tree(run)
    done = run_textgen(
        "run", "p.toml", "--overwrite", "--set", "data.window_length=100000", folder=folder
    )
    assert done.returncode == 1
    assert "too short" in done.stderr
    assert tree(run) == before


def test_the_seed_decides(folder: Path) -> None:
    pipeline = tables(folder, "adamw", "shuffled")
    runs = [
        textgen.run({**pipeline, "seed": seed}, output=folder / str(i))
        for i, seed in enumerate([5, 5, 6])
    ]
    weights = [tree(run.path)["model.safetensors"] for run in runs]
    texts = [tuple(generation.text for generation in run.generations) for run in runs]
    assert (weights[0], texts[0]) == (weights[1], texts[1])
    assert weights[0] != weights[2]
    assert texts[0] != texts[2]
    assert texts[0][0] != texts[0][1]
