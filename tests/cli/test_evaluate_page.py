"""Where `textgen evaluate --html` writes its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text("the clock of the hall")
    return "text.txt"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_page_on_stdout_sends_the_numbers_to_stderr(
    textgen: Callable[..., Any],
    finished_run: Path,
    tmp_path: Path,
    text: str,
    form: tuple[str, ...],
) -> None:
    to_file = textgen("evaluate", finished_run, text, "--html", "page.html", *form, cwd=tmp_path)
    to_stdout = textgen("evaluate", finished_run, text, "--html", "-", *form, cwd=tmp_path)
    assert (to_stdout.code, to_stdout.stderr) == (0, to_file.stdout)
    assert to_stdout.stdout == (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not (tmp_path / "-").exists()
    if form:
        assert json.loads(to_stdout.stderr)["tokens"] > 0
