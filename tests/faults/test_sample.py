"""Kills, signals, errors of the disk and power losses: a sample. All of them: docs/reliability.md has the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run_with_torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def faults() -> dict[str, list[str]]:
    """What is wrong after each fault, by kind; "" for nothing."""
    done = run_with_torch("-m", "campaigns.sample", folder=ROOT, extra={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        kind, place, wrong = json.loads(line)
        found.setdefault(kind, []).append(wrong and f"{place}: {wrong}")
    return found


@pytest.mark.slow
@pytest.mark.fault(1)
def test_killed_at_any_change_to_the_disk_a_run_ends_as_if_undisturbed(
    faults: dict[str, list[str]],
) -> None:
    assert faults["kill"] == [""] * 2


@pytest.mark.slow
@pytest.mark.fault(1)
@pytest.mark.fault(5)
def test_after_a_power_loss_a_run_goes_on_from_its_last_checkpoint(
    faults: dict[str, list[str]],
) -> None:
    assert faults["power loss"] == [""] * 25


@pytest.mark.fault(2)
@pytest.mark.parametrize("error", ["ENOSPC", "EROFS", "moved"])
def test_an_error_of_the_disk_is_one_line_and_costs_no_checkpoint(
    faults: dict[str, list[str]], error: str
) -> None:
    assert faults[error] == [""]


@pytest.mark.fault(8)
@pytest.mark.parametrize(("signal", "times"), [("SIGTERM", 1), ("SIGHUP", 1), ("SIGINT twice", 2)])
def test_a_signal_at_any_change_to_the_disk_ends_in_good_order(
    faults: dict[str, list[str]], signal: str, times: int
) -> None:
    """Also while the only checkpoint of a run that replaces another has no name."""
    assert faults[signal] == [""] * times
