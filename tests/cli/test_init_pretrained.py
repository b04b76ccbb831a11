"""The command init where plugins offer runs to start from."""

import os
import random
import re
import tomllib

import pytest

from textgen import train

OFFERS = """
from pathlib import Path
from textgen import Component, NoOptions, hookimpl

def offer(name):
    return Component(name, NoOptions, lambda config, context: Path(__file__).with_name(name))

@hookimpl
def textgen_runs():
    return [offer(name) for name in ("missing", "counts", "spaces", "begun", "trained")]
"""
BEST = {"type": "best-of", "n": 2}
TEXT = "".join(random.Random(0).choices("ab ", (6, 3, 1), k=4000))


@pytest.fixture
def offering(tmp_path):
    """A folder with a plugin that offers runs, and a text."""
    network, adamw = {"type": "rnn", "hidden_size": 8}, {"type": "adamw", "learning_rate": 0.01}
    for name, corpus, model, trainer in (
        ("counts", TEXT, {"type": "ngram", "order": 2}, {"type": "count"}),
        ("spaces", " " * 2000, network, {**adamw, "length": "2 steps"}),
        ("begun", TEXT, network, {**adamw, "length": "1 steps"}),
        ("trained", TEXT, network, {**adamw, "length": "20 steps"}),
    ):
        parts = {"tokenizer": "char", "model": model, "trainer": trainer}
        generate = {"strategy": BEST} if name == "trained" else {}
        train(corpus=corpus, **parts, generate=generate, output=tmp_path / name)
    (tmp_path / "offers.py").write_text(OFFERS)
    (tmp_path / "my.txt").write_text(TEXT)
    return tmp_path


@pytest.mark.slow
def test_init_starts_from_the_run_of_which_the_lowest_loss_is_expected(textgen, offering):
    def init(*options):
        done = textgen("--plugin", "offers.py", "init", "my.txt", "--force", *options, cwd=offering)
        return done.code, done.stderr, (offering / "my.toml").read_text(encoding="utf-8")

    code, said, written = init()
    assert code == 0, said
    made = tomllib.loads(written)
    assert made["model"]["start"] == "trained"
    assert made["generate"]["strategy"] == BEST, "it writes as its start does"
    assert made["trainer"]["length"] == "4 epochs"
    assert re.search(r"(?m)^start: trained, .* without, .* from begun, .* from spaces", said)
    for name in ("counts", "missing"):  # what was tried and left
        assert f"warning: {name} cannot be started from: " in said
    for start, expected in (("begun", "./begun"), ("none", None)):
        code, said, written = init("--start", start)
        assert code == 0, said
        made = tomllib.loads(written)
        assert made["model"].get("start") == expected
        assert "strategy" not in made["generate"]
        assert "start:" not in said
    code, said, _ = init("--start", "begin")
    assert (code, "begin" in said) == (2, True)


@pytest.mark.skipif(os.name == "nt", reason="no such names on Windows")
def test_a_start_may_have_any_name_that_a_folder_has(textgen, tmp_path):
    name = 'my "best" \\run'
    network = {"type": "rnn", "hidden_size": 8}
    trainer = {"type": "adamw", "length": "2 steps"}
    train(corpus=TEXT, model=network, trainer=trainer, output=tmp_path / name)
    (tmp_path / "my.txt").write_text(TEXT)
    done = textgen("init", "my.txt", "--start", name, "--minutes", "0.05", cwd=tmp_path)
    assert done.code == 0, done.stderr
    made = tomllib.loads((tmp_path / "my.toml").read_text(encoding="utf-8"))
    assert made["model"]["start"] == f"./{name}"
