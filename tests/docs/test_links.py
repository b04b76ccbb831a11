"""Links between the pages of a clone lead somewhere, and the plugin packages are all named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "plugins").glob("*/README.md"),
]
LINK = re.compile(r"\[[^]]*\]\((?!https?:)([^)#\s]+)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_every_plugin_package_is_listed(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    packages = [path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")]
    assert packages
    assert [name for name in packages if name not in text] == []
