"""The contracts of every plugin, by textgen's own suites."""

import textgen_optuna

from textgen.testing import check_plugin


def test_it_keeps_the_contract_of_commands():
    check_plugin(textgen_optuna)
