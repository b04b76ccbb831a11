"""The command evaluate: what it measures, reads and paints."""

import json
import math
import os
import re

import attrs
import pytest
from pages import Page

from textgen import Engine, load, run


def test_evaluate_measures_a_file_and_stdin(evaluate, python, finished_run, tmp_path):
    text = "the time traveller smiled, and the clock struck é.\n" * 20
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    done = evaluate("text.txt", "--json")
    assert done.code == 0, done.stderr
    score = json.loads(done.stdout)
    assert score == pytest.approx(attrs.asdict(load(finished_run).score(iter([text]))))
    assert (score["tokens"], score["unknown_tokens"]) == (len(text), 20)
    plain = evaluate("text.txt").stdout
    assert f"{score['perplexity']:.4f}" in plain
    assert f"{score['loss'] / math.log(2):.4f}" in plain
    assert evaluate("-", "--json", stdin=text).stdout == done.stdout
    if os.name == "posix":
        command = ("-m", "textgen", "evaluate", finished_run, "/dev/stdin", "--json")
        assert python(*command, cwd=tmp_path, stdin=text).stdout == done.stdout
    failed = evaluate("-")
    assert (failed.code, failed.stderr.startswith("textgen: error: stdin: ")) == (2, True)


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ("aé".encode() + b"\xff", 1, "so the file is damaged there: mend it"),
        (b"", 2, "nothing to score"),
    ],
)
def test_evaluate_says_what_is_wrong_with_a_file(evaluate, tmp_path, data, code, said):
    (tmp_path / "text.txt").write_bytes(data)
    failed = evaluate("text.txt")
    assert (failed.code, failed.stdout) == (code, "")
    (line,) = failed.stderr.splitlines()
    assert "text.txt" in line
    assert said in line
    assert "option encoding" not in line


def test_evaluate_takes_the_texts_of_a_folder(evaluate, finished_run, tmp_path):
    for name, text in (("a.txt", "the clock\n"), ("b.txt", "the hall\n"), ("c.log", "no\n")):
        (tmp_path / name).write_text(text)
    score = attrs.asdict(load(finished_run).score("the clock\nthe hall\n"))
    assert json.loads(evaluate(".", "--json").stdout) == pytest.approx(score)
    assert "a folder of texts" in evaluate("--help").stdout


def test_evaluate_reads_another_encoding(evaluate, tmp_path):
    (tmp_path / "text.txt").write_text("the clock é", encoding="cp1252")
    done = evaluate("text.txt", "--encoding", "cp1252", "--json")
    assert json.loads(done.stdout)["unknown_tokens"] == 1
    (tmp_path / "text.txt").write_text("the clock é", encoding="utf-16")
    found = evaluate("text.txt", "--json")
    assert (found.stdout, found.stderr) == (done.stdout, "")
    failed = evaluate("text.txt", "--encoding", "cp9999")
    assert (failed.code, failed.stdout) == (2, "")
    assert 'encoding: must be "auto", or an encoding that Python knows' in failed.stderr


def test_evaluate_joins_lines_as_the_run_does(textgen, tmp_path, tiny_pipeline):
    tables = tiny_pipeline(text="the clock\nstruck nine\n\n" * 40)
    tables["corpus"] |= {"wrapped_at": 12}
    joined = "".join(Engine().read_corpus(tables["corpus"]))
    done = textgen("evaluate", run(tables).path, "corpus.txt", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["characters"] == len(joined)
    raw = textgen("evaluate", "run", "corpus.txt", "--documents", "none", "--json", cwd=tmp_path)
    assert json.loads(raw.stdout)["loss"] > json.loads(done.stdout)["loss"]


def test_a_page_shows_the_beginning_and_marks_what_the_vocabulary_lacks(evaluate, tmp_path):
    text, name = "the clöck & the hour\n" + "the clock " * 6000, "<i>&.txt"
    (tmp_path / name).write_text(text, encoding="utf-8")
    evaluate(name, "--html", "page.html")
    page = Page.read(tmp_path / "page.html")
    assert page.text["pre"] == re.sub("[ö&]", "\ufffd", text[:50_000])
    assert page.text["u"] == "\ufffd\ufffd"
    assert "over 50,000 tokens" in page.text["p"]
