"""What plugin authors test with: a contract suite for each kind of component, and a pytest plugin.

check_sampler(Component("loud", LoudConfig, build), options={"factor": 2.0})
check_plugin("textgen_loud")

Every failure is a ContractFailure that says what the contract asks, what was seen, and what helps;
contracts.md has it all. Importing this package loads neither NumPy nor torch. The fixtures are in
textgen.testing.pytest_plugin, which pytest finds by itself.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from textgen.plugin.component import HOOKS as _HOOKS
from textgen.testing.environment import TEXT, isolated_plugins
from textgen.testing.outcomes import ContractFailure, Outcome
from textgen.testing.statements import STATEMENTS, Statement

if _TYPE_CHECKING:
    from textgen.testing.commands import check_command
    from textgen.testing.corpora import check_corpus
    from textgen.testing.models import check_model
    from textgen.testing.objectives import check_objective
    from textgen.testing.observers import check_observer
    from textgen.testing.plugin import check_plugin
    from textgen.testing.runs import check_run
    from textgen.testing.samplers import check_sampler
    from textgen.testing.strategies import check_strategy
    from textgen.testing.tokenizers import check_tokenizer
    from textgen.testing.trainers import check_trainer

__all__ = [
    "STATEMENTS",
    "TEXT",
    "ContractFailure",
    "Outcome",
    "Statement",
    "check_command",
    "check_corpus",
    "check_model",
    "check_objective",
    "check_observer",
    "check_plugin",
    "check_run",
    "check_sampler",
    "check_strategy",
    "check_tokenizer",
    "check_trainer",
    "isolated_plugins",
]

# These need NumPy, which pytest's start should not have to wait for.
_LATER = {f"check_{kind}": hook.removeprefix("textgen_") for hook, kind in _HOOKS.items()} | {
    "check_plugin": "plugin"
}


def __getattr__(name: str) -> _Any:
    if name in _LATER:
        return getattr(_importlib.import_module(f"textgen.testing.{_LATER[name]}"), name)
    raise AttributeError(f"module 'textgen.testing' has no attribute {name!r}")
