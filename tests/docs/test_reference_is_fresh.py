"""The committed reference pages, docs/reference/*.md, are those that the code gives now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIRECTIVE = re.compile(r"^(```|:::)\{|^\.\. \w+::", re.MULTILINE)


@pytest.mark.slow
def test_the_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/reference.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "60"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_no_page_shows_a_raw_directive() -> None:
    """GitHub and editors show Sphinx directives as they stand."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    raw = [
        str(page.relative_to(ROOT))
        for page in pages
        if DIRECTIVE.search(page.read_text(encoding="utf-8"))
    ]
    assert raw == []
