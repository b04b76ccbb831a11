"""Every fault of the table in docs/reliability.md is injected by a test."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_fault_is_injected() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE))
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert listed
    assert set(re.findall(r"@pytest\.mark\.fault\((\d+)\)", tests)) == listed
