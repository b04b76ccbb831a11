"""A sample of the campaigns, always the same one: docs/reliability.md and docs/untrusted-runs.md
have the commands.
"""

from pathlib import Path

import pytest
from commands import run_python

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.unix  # they send signals and limit memory


def assert_nothing_is_wrong(campaign, *arguments):
    command = ("-m", f"campaigns.{campaign}", *arguments)
    done = run_python(*command, folder=ROOT, extra={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.fault(2)
@pytest.mark.fault(8)
def test_errors_of_the_disk_and_signals_cost_no_checkpoint():
    kinds = [f"--kind={kind}" for kind in ("ENOSPC", "EROFS", "moved", "SIGTERM", "SIGINT twice")]
    assert_nothing_is_wrong("inject", *kinds, "--setting", "new", "--cases", "6")


@pytest.mark.slow
@pytest.mark.fault(1)
def test_killed_at_any_change_to_the_disk_a_run_ends_as_if_undisturbed():
    assert_nothing_is_wrong("inject", "--kind=kill", "--kind=SIGHUP", "--cases", "10")


@pytest.mark.slow
@pytest.mark.fault(1)
@pytest.mark.fault(5)
def test_after_a_power_loss_a_run_goes_on_from_its_last_checkpoint():
    assert_nothing_is_wrong("replay", "--cases", "25")
