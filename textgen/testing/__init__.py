"""Tests for plugin authors: the contract of each kind of component, and a pytest plugin.

check("sampler", Component("loud", LoudConfig, build), options={"factor": 2.0})
check_plugin("textgen_loud")

Every failure is a ContractFailure that says what the contract asks, what was seen, and what helps;
contracts.md has it all. Importing this package loads neither NumPy nor torch. The fixtures are in
textgen.testing.pytest_plugin, which pytest finds by itself.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from textgen.testing.environment import isolated_plugins
from textgen.testing.outcomes import ContractFailure, Outcome
from textgen.testing.statements import STATEMENTS, Statement

if _TYPE_CHECKING:
    from textgen.testing.plugin import check, check_plugin

__all__ = [
    "STATEMENTS",
    "ContractFailure",
    "Outcome",
    "Statement",
    "check",
    "check_plugin",
    "isolated_plugins",
]


def __getattr__(name: str) -> _Any:
    if name in ("check", "check_plugin"):  # they need NumPy, which pytest's start should not
        from textgen.testing import plugin

        return getattr(plugin, name)
    raise AttributeError(f"module 'textgen.testing' has no attribute {name!r}")
