"""The command compare: figures, settings that differ and curves of several runs."""

import json
import re
import shutil

import pytest
from click.testing import CliRunner
from pages import Page

import textgen
from textgen_builtins.commands.compare import compare

HOSTILE = "<script>alert(1)&\"'"


def invoke(*arguments):
    made = CliRunner().invoke(compare, list(map(str, arguments)), catch_exceptions=False)
    assert made.exit_code == 0, made.output
    return made.stdout


def compared(*arguments):
    return json.loads(invoke(*arguments, "--json"))


@pytest.fixture
def runs(finished_run, tiny_pipeline, tmp_path):
    """A finished run, a stopped one of another size with a hostile name, and a damaged one."""
    folder = tmp_path / "runs"
    shutil.copytree(finished_run, folder / "first")
    asked = iter([False] * 2)
    tables = tiny_pipeline(
        observers=True,
        seed=7,
        model={"hidden_size": 12},
        trainer={"evaluate_every": 1},
        generate={"prompt": HOSTILE, "unknown_characters": "skip"},
    )
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables, output=folder / HOSTILE, cancelled=lambda: next(asked, True))
    (folder / "damaged").mkdir()
    (folder / "damaged/run.json").write_text("[\x1b")
    return folder


def test_runs_are_compared(runs):
    found = compared(runs)
    rows = {row["name"]: row for row in found["runs"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "first": "finished",
        HOSTILE: "unfinished",
        "damaged": "damaged",
    }
    differ = found["settings"]
    # and nothing of the damaged one
    assert differ["model.hidden_size"] == {"8": ["first"], "12": [HOSTILE]}
    assert "seed" not in differ
    assert len(rows[HOSTILE]["curve"]) == 3
    shown = invoke(runs)
    assert "\x1b" not in shown
    assert "settings that differ:" in shown
    same = invoke(runs / "first", runs / "first")
    assert len(same.splitlines()) == 2  # it is there once


def test_a_run_that_is_trained_anew_has_its_new_settings(tiny_pipeline, runs):
    """Its figures are those of the new run, which is not finished."""
    asked = iter([False] * 2)
    with pytest.raises(textgen.Interrupted):
        textgen.run(
            tiny_pipeline(model={"hidden_size": 9}),
            output=runs / "first",
            overwrite=True,
            cancelled=lambda: next(asked, True),
        )
    assert compared(runs)["settings"]["model.hidden_size"] == {"9": ["first"], "12": [HOSTILE]}


def test_losses_of_other_texts_are_not_compared(tiny_pipeline, runs, tmp_path):
    first = runs / "first"
    assert compared(first)["note"] == ""
    for changes, said in (
        ({"text": "another text, that is long enough to be one. " * 30}, "different texts"),
        ({"data": {"validation": 0.3}}, "different parts of the text"),
        ({"tokenizer": {"letters_only": True}}, "another text"),
        ({"data": {"validation": 0.0}}, "some of training text"),
    ):
        other = textgen.run(tiny_pipeline(**changes), output=tmp_path / said).path
        assert said in compared(first, other)["note"]


def test_tokens_that_stand_for_unknown_text_are_not_compared(tiny_pipeline, runs, tmp_path):
    """What they stand for costs no bits: the run that knows less would seem the better one."""
    tables = tiny_pipeline(tokenizer={"min_frequency": 40})
    with pytest.warns(UserWarning):
        made = textgen.run(tables, output=tmp_path / "coarse")
    share = json.loads((made.path / "run.json").read_text())["data"]["unknown_share"]
    assert 0.01 < share < 1
    found = compared(runs / "first", made.path)
    assert found["note"] == (
        "the runs have different tokens, and some stand for text outside the vocabulary "
        f"({share:.0%} in coarse), whose spelling costs no bits: they cannot be compared"
    )


def test_the_page_holds_all_of_it_and_escapes_it(runs, tmp_path):
    page = tmp_path / "page.html"
    shown = invoke(runs, "--html", page)
    text = page.read_text(encoding="utf-8")
    read = Page.read(page)
    assert "script" not in read.text
    assert HOSTILE in read.text["pre"]
    assert f"{read.text['pre']}\n" == shown
    outside = r'(?:src|href)="|https?://(?!www\.w3\.org)|url\((?!#plot)'
    assert not re.search(outside, text)
    assert "loss (nats per token)" in read.text["text"]
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for file in (notes, runs, tmp_path / "no/where.html"):
        with pytest.raises(textgen.UsageError):
            invoke(runs, "--html", file)
    assert notes.read_text() == "mine"
    with pytest.raises(textgen.UsageError):
        invoke(runs / "first/checkpoints")
