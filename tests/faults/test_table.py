"""The table of faults in docs/reliability.md is what the tests say."""

from __future__ import annotations

from .table import FAULTS, marked, table, written


def test_the_table_of_faults_is_fresh() -> None:
    assert written() == table(), "python -m tests.faults.table --write"


def test_every_fault_is_injected() -> None:
    assert {number for number, _, _ in marked()} == set(FAULTS)
