"""A sample of the campaign, always the same one: `python -m campaigns.corruptions` runs as many as wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import run_with_torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_corruptions_are_named_or_harmless() -> None:
    done = run_with_torch(
        "-m", "campaigns.corruptions", "--cases", "60", "--seed", "11", folder=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
