"""What the tests of the built-in set share."""

import pytest


@pytest.fixture
def file(tmp_path):
    """A file to be written."""
    return tmp_path / "a.txt"
