"""Every picture of the docs is shown, and is drawn by docs/pictures.py or taken by the program of
textgen-serve from what there is now.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/pictures"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs/pictures.py"))


def test_the_pictures_are_drawn_from_the_figures_beside_them(script: dict[str, Any]) -> None:
    drawn = script["pictures"]()
    assert drawn.keys() == {path.name for path in FOLDER.glob("*.svg")}
    for name, picture in drawn.items():
        ElementTree.fromstring(picture)
        assert (FOLDER / name).read_text(encoding="utf-8") == picture, "run docs/pictures.py"


def test_every_picture_is_shown_on_a_page() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = re.findall(
        r"!\[[^]]+\]\([^)]*pictures/([^)]+)\)", "\n".join(map(Path.read_text, pages))
    )
    kept = {path.name for path in FOLDER.iterdir() if path.suffix not in (".csv", ".json")}
    assert set(shown) == kept


def test_the_pictures_of_the_page_are_of_the_page_as_it_is() -> None:
    taken = runpy.run_path(str(ROOT / "plugins/textgen-serve/screenshots.py"))
    recorded = taken["RECORD"].read_text(encoding="utf-8").strip()
    assert taken["digest"]() == recorded, "run plugins/textgen-serve/screenshots.py"
