"""What the pages name is there: linked files, packages, pictures, injected faults."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/pictures"
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "plugins").glob("*/README.md"),
]
LINK = re.compile(r"\[[^]]*\]\((?!https?:)([^)#\s]+)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^(```|:::)\{|^\.\. \w+::", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_shows_a_raw_directive(page):
    """GitHub and editors show Sphinx directives as they stand."""
    assert DIRECTIVE.search(page.read_text(encoding="utf-8")) is None


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_every_plugin_package_is_listed(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    packages = [path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")]
    assert packages
    assert [name for name in packages if name not in text] == []


def test_every_fault_of_the_table_is_injected_by_a_test():
    page = (ROOT / "tests/faults/README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE))
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert listed
    assert set(re.findall(r"@pytest\.mark\.fault\((\d+)\)", tests)) == listed


def test_the_pictures_are_drawn_from_the_figures_beside_them():
    drawn = runpy.run_path(str(ROOT / "docs/pictures.py"))["pictures"]()
    assert drawn.keys() == {path.name for path in PICTURES.glob("*.svg")}
    for name, picture in drawn.items():
        ElementTree.fromstring(picture)
        assert (PICTURES / name).read_text(encoding="utf-8") == picture, "run docs/pictures.py"


def test_every_picture_is_shown_on_a_page():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = re.findall(r"!\[[^]]+\]\([^)]*pictures/([^)]+)\)", text)
    kept = {path.name for path in PICTURES.iterdir() if path.suffix not in (".csv", ".json")}
    assert set(shown) == kept
