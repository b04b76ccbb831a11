"""What the tests of generation share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textgen import (
    Generator,
    load,
)


@pytest.fixture(scope="module")
def lively(finished_run: Path) -> Generator:
    """One with large random weights, whose greedy text does not settle."""
    made = load(finished_run)
    draw = np.random.default_rng(6)
    tensors = made.model.tensors()
    made.model.load_tensors({n: draw.normal(0, 2, a.shape).astype(a.dtype) for n, a in sorted(tensors.items())})
    assert len(set(made.generate("the ", max_new_tokens=100, temperature=0).tokens)) > 5
    return made
