"""What the tests of textgen.testing share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the broken components write where they are."""
    monkeypatch.chdir(tmp_path)
