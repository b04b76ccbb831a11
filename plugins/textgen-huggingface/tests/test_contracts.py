"""The contracts of every plugin, by textgen's own suites."""

import pytest
from conftest import CONFIGS, PATIENCE

from textgen import PluginSet
from textgen.testing import check, check_plugin
from textgen_huggingface import plugin

SET = PluginSet.discover()
OF_OTHERS = ("huggingface", "huggingface-tokenizer", "huggingface-model", "huggingface-files")
SKIPPED = {"needs the model 'huggingface'"}


def offered(components, name):
    return next(component for component in components if component.name == name)


def all_ok(outcomes):
    """Only what a component need not have is left out."""
    left_out = {"tokenizer-end"}
    missed = [
        o
        for o in outcomes
        if o.status == "skipped" and o.statement and o.statement.anchor not in left_out
    ]
    assert not missed


def test_what_needs_no_options_keeps_its_contracts():
    outcomes = check_plugin(plugin, leave_out=OF_OTHERS, time_limit=PATIENCE)
    reasons = {outcome.reason for outcome in outcomes if outcome.status == "skipped"}
    assert not [reason for reason in reasons if not any(known in reason for known in SKIPPED)]


@pytest.mark.parametrize("architecture", [*CONFIGS])
def test_models_keep_their_contract(architecture):
    options = {"architecture": architecture, "config": {**CONFIGS[architecture]}, "dropout": 0.1}
    options["config"] |= {
        "n_positions" if architecture == "gpt2" else "max_position_embeddings": 64
    }
    component = offered(plugin.textgen_models(), "huggingface")
    all_ok(check("model", component, options=options, time_limit=PATIENCE))


def test_a_tokenizer_from_a_folder_keeps_its_contract(run):
    component = offered(plugin.textgen_tokenizers(), "huggingface-tokenizer")
    options = {"path": str(run.path)}
    all_ok(check("tokenizer", component, options=options, time_limit=PATIENCE))


def test_the_observer_keeps_its_contract_in_a_run_of_this_model(make_pipeline):
    pipeline = {key: value for key, value in make_pipeline().items() if key != "observer"}
    all_ok(
        check(
            "observer",
            offered(plugin.textgen_observers(), "huggingface-files"),
            pipeline=pipeline,
            plugins=SET,
            time_limit=PATIENCE,
        )
    )
