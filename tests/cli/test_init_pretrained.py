"""The command init where plugins offer runs to start from."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from textgen import load, train

OFFERS = """
from pathlib import Path
from textgen import Component, NoOptions, hookimpl

def offer(name):
    return Component(name, NoOptions, lambda config, context: Path(__file__).with_name(name))

@hookimpl
def textgen_runs():
    return [offer(name) for name in ("missing", "counts", "spaces", "begun", "trained")]
"""
TEXT = ("abba cab " * 223)[:2000]


@pytest.mark.slow
def test_init_starts_from_the_network_that_knows_the_text_best(
    textgen: Any, tmp_path: Path
) -> None:
    network, adamw = {"type": "rnn", "hidden_size": 8}, {"type": "adamw", "learning_rate": 0.01}
    for name, corpus, model, trainer in (
        ("counts", TEXT, {"type": "ngram", "order": 2}, {"type": "count"}),
        ("spaces", " " * 2000, network, {**adamw, "length": "2 steps"}),
        ("begun", TEXT, network, {**adamw, "length": "1 steps"}),
        ("trained", TEXT, network, {**adamw, "length": "20 steps"}),
    ):
        train(corpus=corpus, tokenizer="char", model=model, trainer=trainer, output=tmp_path / name)
    (tmp_path / "offers.py").write_text(OFFERS)
    (tmp_path / "my.txt").write_text(TEXT)
    done = textgen("--plugin", "offers.py", "init", "my.txt", cwd=tmp_path)
    assert done.code == 0, done.stderr
    written = (tmp_path / "my.toml").read_text(encoding="utf-8")
    made = tomllib.loads(written)
    assert made["model"]["start"] == "trained"
    assert (
        f"a loss of {load(tmp_path / 'trained').score(TEXT).loss:.2f} nats a character" in written
    )
    assert made["trainer"]["length"] == "4 epochs", "there is time for them at the speed tried"
