"""What the tests of textgen.testing share."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Some of the broken components write where they are, and some change what belongs to the whole process."""
    monkeypatch.chdir(tmp_path)
    level, handler, variables = (
        logging.root.level,
        signal.getsignal(signal.SIGTERM),
        dict(os.environ),
    )
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    logging.root.setLevel(level)
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ.update(variables)
    if threads is not None:
        sys.modules["torch"].set_num_threads(threads)
