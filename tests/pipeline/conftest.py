"""What the tests of pipelines share."""

import pytest

from textgen import Engine
from textgen.testing import isolated_plugins


@pytest.fixture(scope="module")
def engine():
    """With the built-in set alone: errors list the components that there are."""
    return Engine(isolated_plugins())
