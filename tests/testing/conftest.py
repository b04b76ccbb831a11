"""What the tests of textgen.testing share."""

import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Some of the broken components write where they are."""
    monkeypatch.chdir(tmp_path)
