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


def test_every_default_is_a_value() -> None:
    text = (ROOT / "docs/reference/components.md").read_text(encoding="utf-8")
    assert "| `bias` | a table | required |" in text
    assert "| `k` | an integer | `40` |" in text
    assert "`[x]`" not in text


def test_a_type_alias_that_a_signature_names_is_defined() -> None:
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    declared = re.compile(r"^([A-Z]\w+): TypeAlias", re.MULTILINE)
    aliases = {
        name
        for path in (ROOT / "textgen").rglob("*.py")
        for name in declared.findall(path.read_text("utf-8"))
    }
    named = set(re.findall(r"\w+", "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))))
    assert {"FinishReason", "Overrides"} <= aliases & named
    assert aliases & named <= set(re.findall(r"^### `(\w+)`$", page, re.MULTILINE))


def test_what_a_class_inherits_from_no_public_one_is_among_its_members() -> None:
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    for name in ("TextStream", "AsyncTextStream"):
        section = page.split(f"\n## `{name}`\n")[1].split("\n## ")[0]
        assert f"### `{name}.cancel`" in section
        for member in ("finish_reason", "seed", "index", "ids", "logprobs", "state"):
            assert f"`{member}`" in section
