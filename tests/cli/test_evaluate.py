"""The command evaluate: what it measures, reads and paints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from pages import Page

from textgen import load, run


def test_evaluate_measures_a_file(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    text = "the time traveller smiled, and the clock struck é.\n" * 20
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    done = textgen("evaluate", finished_run, "text.txt", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    score = json.loads(done.stdout)
    assert score == pytest.approx(attrs.asdict(load(finished_run).score(iter([text]))))
    assert score["tokens"] == len(text) - 1
    assert score["unknown_tokens"] == 20
    plain = textgen("evaluate", finished_run, "text.txt", cwd=tmp_path)
    assert f"{score['perplexity']:.4f}" in plain.stdout
    assert f"{score['loss'] / math.log(2):.4f}" in plain.stdout


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (None, 2, "'text.txt' does not exist"),
        (
            "aé".encode() + b"\xff",
            1,
            "so the file is damaged there: mend it",
        ),
        (b"%PDF", 1, "it is a PDF, not plain text"),
        (b"", 2, "two tokens"),
        (b"t", 2, "two tokens"),
    ],
)
def test_evaluate_says_what_is_wrong_with_a_file(
    textgen: Callable[..., Any],
    finished_run: Path,
    tmp_path: Path,
    data: bytes | None,
    code: int,
    said: str,
) -> None:
    if data is not None:
        (tmp_path / "text.txt").write_bytes(data)
    failed = textgen("evaluate", finished_run, "text.txt", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (code, ""), failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert "text.txt" in failed.stderr
    assert said in failed.stderr
    assert "option encoding" not in failed.stderr


def test_evaluate_reads_stdin(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    text = "the clock struck the hour, and the hall was é.\n" * 30
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    of_a_file = textgen("evaluate", finished_run, "text.txt", "--json", cwd=tmp_path)
    for name in ("-", "/dev/stdin"):
        piped = textgen("evaluate", finished_run, name, "--json", cwd=tmp_path, stdin=text)
        assert piped.stdout == of_a_file.stdout
    failed = textgen("evaluate", finished_run, "-", cwd=tmp_path)
    assert (failed.code, failed.stderr.startswith("textgen: error: stdin: ")) == (2, True)


def test_evaluate_takes_the_texts_of_a_folder(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    for name, text in (("a.txt", "the clock\n"), ("b.txt", "the hall\n"), ("c.log", "no\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = textgen("evaluate", finished_run, ".", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == pytest.approx(
        attrs.asdict(load(finished_run).score("the clock\nthe hall\n"))
    )
    assert "a folder of texts" in textgen("evaluate", "--help", cwd=tmp_path).stdout


def test_evaluate_reads_another_encoding(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("the clock é", encoding="cp1252")
    done = textgen(
        "evaluate", finished_run, "text.txt", "--encoding", "cp1252", "--json", cwd=tmp_path
    )
    assert json.loads(done.stdout)["unknown_tokens"] == 1
    (tmp_path / "text.txt").write_text("the clock é", encoding="utf-16")
    found = textgen("evaluate", finished_run, "text.txt", "--json", cwd=tmp_path)
    assert (found.stdout, found.stderr) == (done.stdout, "")
    failed = textgen("evaluate", finished_run, "text.txt", "--encoding", "cp9999", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, "")
    assert 'encoding: must be "auto", or an encoding that Python knows' in failed.stderr


def page_of(textgen: Callable[..., Any], run: Path, text: str, folder: Path) -> Page:
    done = textgen("evaluate", run, text, "--html", "page.html", cwd=folder)
    assert done.code == 0, done.stderr
    return Page.read(folder / "page.html")


def test_a_page_marks_what_the_vocabulary_lacks(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("the clöck & the hour\n", encoding="utf-8")
    page = page_of(textgen, finished_run, "text.txt", tmp_path)
    assert page.text["pre"] == "the cl\ufffdck \ufffd the hour\n"
    assert page.text["u"] == "\ufffd\ufffd"


def test_evaluate_paints_a_page(
    textgen: Callable[..., Any], tmp_path: Path, tiny_pipeline: Any
) -> None:
    text = "<b>the</b> & \"clock\" <script>'tick'\n\n tock &amp; é</script>\n" * 12
    made = run(tiny_pipeline(text=text))
    name = "<i>&.txt"
    (tmp_path / name).write_text(text, encoding="utf-8")
    page = page_of(textgen, made.path, name, tmp_path)
    assert page.text["pre"] == text
    assert "script" not in page.text
    scores = np.concatenate([block.logprobs for block in made.generator.score_tokens(text)])
    assert page.titles == [f"{bits:.1f} bits" for bits in [0, *(scores[1:] / -math.log(2))]]
    assert f"over {len(text) - 1:,} tokens" in page.text["p"]


def test_a_page_shows_the_beginning_of_a_long_text(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("the clock " * 6000, encoding="utf-8")
    page = page_of(textgen, finished_run, "text.txt", tmp_path)
    assert page.text["pre"] == "the clock " * 5000
    failed = textgen(
        "evaluate", finished_run, "text.txt", "--html", "missing/page.html", cwd=tmp_path
    )
    assert (failed.code, failed.stdout, len(failed.stderr.splitlines())) == (2, "", 1)


def test_a_page_on_stdout_sends_the_numbers_to_stderr(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("the clock of the hall")
    command = ("evaluate", finished_run, "text.txt", "--json", "--html")
    to_file = textgen(*command, "page.html", cwd=tmp_path)
    to_stdout = textgen(*command, "-", cwd=tmp_path)
    assert (to_stdout.code, to_stdout.stderr) == (0, to_file.stdout)
    assert to_stdout.stdout == (tmp_path / "page.html").read_text(encoding="utf-8")
