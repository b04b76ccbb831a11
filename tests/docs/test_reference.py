"""The reference pages that are written from the code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

EXTENSION = Path(__file__).parents[2] / "docs/_ext"


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with the pages, as Sphinx has them written."""
    monkeypatch.syspath_prepend(str(EXTENSION))
    import textgen_reference

    handlers = {}
    app = SimpleNamespace(srcdir=tmp_path, connect=lambda event, handler: handlers.update({event: handler}))
    textgen_reference.setup(app)
    handlers["builder-inited"](app)
    yield tmp_path / "generated"
    del sys.modules["textgen_reference"]


def test_every_default_is_a_value(generated: Path) -> None:
    text = (generated / "components.md").read_text(encoding="utf-8")
    assert "| `logit_bias` | a table | `{}` |" in text
    assert "`[x]`" not in text
    assert "| `stop` |" in (generated / "tables.md").read_text(encoding="utf-8")
