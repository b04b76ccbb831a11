"""The contracts of every plugin, by textgen's own suites."""

import subprocess
import sys

import textgen_optuna

from textgen.testing import check_plugin


def test_it_keeps_the_contract_of_commands():
    assert {outcome.status for outcome in check_plugin(textgen_optuna)} <= {"ok", "skipped"}


def test_listing_plugins_loads_neither_optuna_nor_numpy():
    code = (
        "import sys, textgen; names = [o.name for o in "
        "textgen.PluginSet.discover().offers('command')]; "
        "assert 'optuna' in names, names; "
        "assert not {'optuna', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
