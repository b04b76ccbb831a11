"""The contracts of every plugin, by textgen's own suites."""

import textgen_tensorboard

from textgen.testing import check_plugin


def test_it_keeps_the_contract_of_observers():
    assert {outcome.status for outcome in check_plugin(textgen_tensorboard)} == {"ok"}
