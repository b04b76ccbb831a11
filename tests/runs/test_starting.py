"""Fine-tuning: a run that starts from the model of another."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from commands import run_textgen
from small_run import TEXT, tables, text_of, tree

import textgen

OTHER = TEXT.replace("ravens", "hens").replace("hills", "lakes")
MIXED = {
    "model": {
        "type": "mixture",
        "first": {"type": "rnn", "hidden_size": 8},
        "second": {"type": "ngram", "order": 3},
    },
    "trainer": {
        "type": "mixture",
        "first": {"type": "adamw", "length": "6 steps", "batch_size": 48},
    },
}


@pytest.fixture
def base(folder: Path) -> Path:
    """A finished run, in a folder that also has another text."""
    (folder / "other.txt").write_text(OTHER)
    return textgen.run(
        tables(folder, "adamw", "shuffled", cell="gru"), output=folder / "runs/base"
    ).path


def tuned(folder: Path, **changes: Any) -> dict[str, Any]:
    """A pipeline that trains on the other text from there on, and says nothing of model and tokenizer."""
    made = tables(folder, "adamw", "shuffled")
    del made["tokenizer"]
    made |= {"model": {"start": str(folder / "runs/base")}, "observer": []}
    made["corpus"] = {"type": "file", "path": str(folder / "other.txt")}
    return {**made, **changes}


def slow(folder: Path) -> dict[str, Any]:
    """The same with so low a rate that the weights stay as they are."""
    return tuned(
        folder,
        trainer={"type": "adamw", "length": "1 step", "learning_rate": 1e-12, "batch_size": 48},
    )


def test_it_starts_with_weights_options_and_tokenizer_of_the_other_run(
    folder: Path, base: Path
) -> None:
    before = tree(base)
    run = textgen.run(slow(folder), output=folder / "tuned")
    made = run.generator.tables["model"]
    assert (made["type"], made["cell"], made["dropout"]) == ("rnn", "gru", 0.3)
    files, record = tree(run.path), json.loads((base / "run.json").read_text())["files"]
    assert files["tokenizer.json"] == before["tokenizer.json"]
    start = json.loads((run.path / "run.json").read_text())["fingerprint"]["model"]["start"]
    assert start["weights"] == record["model.safetensors"]
    assert (run.path / "pipeline.toml").read_text().count(f'start = "{base}"') == 1
    assert run.generator.score(OTHER).loss == pytest.approx(
        textgen.load(base).score(OTHER).loss, abs=1e-4
    )
    assert tree(base) == before


def test_the_other_run_is_not_needed_once_training_has_begun(folder: Path, base: Path) -> None:
    whole = textgen.run(tuned(folder), output=folder / "whole")
    count = itertools.count(1)
    with pytest.raises(textgen.Interrupted):
        textgen.run(tuned(folder), output=folder / "tuned", cancelled=lambda: next(count) == 4)
    shutil.rmtree(base)
    run = textgen.run(tuned(folder), output=folder / "tuned")
    assert run.outcome == "resumed"
    assert tree(run.path)["model.safetensors"] == tree(whole.path)["model.safetensors"]
    assert text_of(run.path) == text_of(whole.path)
    assert textgen.run(tuned(folder), output=run.path).outcome == "skipped"
    assert textgen.run(run.path / "pipeline.toml").outcome == "skipped"
    with pytest.raises(
        textgen.PipelineError,
        match=r"model\.start: .*base is not a run directory: it does not exist",
    ):
        textgen.run(tuned(folder), output=folder / "new")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_start_is_named(folder: Path, base: Path, name: str) -> None:
    data = bytearray((base / name).read_bytes())
    data[-9] ^= 1
    (base / name).write_bytes(data)
    said = rf"model\.start: .*{re.escape(name)}: .*restore it from a copy"
    with pytest.raises(textgen.CorruptFileError, match=said):
        textgen.run(tuned(folder), output=folder / "tuned")


def test_a_mixture_is_started_from_too(folder: Path) -> None:
    (folder / "other.txt").write_text(OTHER)
    textgen.run({**tables(folder, "adamw", "shuffled"), **MIXED}, output=folder / "runs/base")
    start = {"start": str(folder / "runs/base"), "first": {"dropout": 0.1}}
    run = textgen.run(tuned(folder, model=start, trainer=MIXED["trainer"]), output=folder / "tuned")
    made = run.generator.tables["model"]
    assert (made["type"], made["first"]["hidden_size"], made["first"]["dropout"]) == (
        "mixture",
        8,
        0.1,
    )
    assert made["second"]["order"] == 3
    assert run.generator.score(OTHER).loss < textgen.load(folder / "runs/base").score(OTHER).loss


def test_another_start_is_another_pipeline(folder: Path, base: Path) -> None:
    run = textgen.run(tuned(folder), output=folder / "tuned").path
    textgen.run(
        {**tables(folder, "adamw", "shuffled", cell="gru"), "seed": 1}, output=base, overwrite=True
    )
    with pytest.raises(
        textgen.RunMismatchError, match=r"model\.start\.weights: \w{12}… before, \w{12}… now\n"
    ):
        textgen.run(tuned(folder), output=run)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            lambda base: {"model": {"start": base, "hidden_size": 9}},
            r"model\.start: the weights of .*base do not fit: ",
        ),
        (
            lambda base: {"tokenizer": {"type": "char", "letters_only": True}},
            r"tokenizer: the model of .*base has a",
        ),
        (
            lambda base: {"model": {"start": base + "s"}},
            r"model\.start: .*bases is not a run directory",
        ),
        (lambda base: {"model": {"start": 5}}, r"model\.start: expected a path, given 5"),
        (
            lambda base: {"model": {"start": base, "hiden_size": 8}},
            r"model\.hiden_size: unknown key; did you mean",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    folder: Path, base: Path, changes: Callable[[str], dict[str, Any]], said: str
) -> None:
    with pytest.raises(textgen.PipelineError, match=said):
        textgen.run(tuned(folder, **changes(str(base))), output=folder / "tuned")
    assert not (folder / "tuned").exists()


def test_a_run_that_is_not_finished_and_the_run_itself_are_no_start(
    folder: Path, base: Path
) -> None:
    with pytest.raises(textgen.PipelineError, match="a run cannot start from itself"):
        textgen.run(tuned(folder), output=base, overwrite=True)
    assert textgen.load(base)
    with pytest.raises(textgen.Interrupted):
        textgen.run(
            tables(folder, "sgd", "shuffled"), output=base, overwrite=True, cancelled=lambda: True
        )
    assert textgen.run(tuned(folder), output=folder / "tuned").outcome == "trained"  # from the old
    (base / ".next-run").rename(folder / "unfinished")
    shutil.rmtree(base)
    (folder / "unfinished").rename(base)
    with pytest.raises(
        textgen.PipelineError, match="is not finished; `textgen run --finish` takes"
    ):
        textgen.run(tuned(folder), output=folder / "other")


def test_show_says_what_a_run_starts_from(folder: Path, base: Path) -> None:
    made = tuned(folder)
    made["model"]["start"] = "runs/base"  # from the folder of the pipeline
    (folder / "tuned.toml").write_text(tomli_w.dumps(made))
    shown = run_textgen("show", "tuned.toml", folder=folder)
    assert shown.returncode == 0, shown.stderr
    assert f'start = "{base}"\n' in shown.stdout
    assert "hidden_size = 8" in shown.stdout
    (folder / "shown.toml").write_text(shown.stdout)
    again = ["tokenizer.type=char"]  # the same may be given
    first = textgen.run(folder / "tuned.toml", again, output=folder / "tuned")
    assert textgen.run(folder / "shown.toml", output=first.path).outcome == "skipped"
