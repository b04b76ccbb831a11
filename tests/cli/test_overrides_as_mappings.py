"""Overrides as a mapping: dotted keys, nested tables, and what is wrong with them."""

import pytest

from textgen import Engine


@pytest.mark.parametrize(
    "overrides",
    [
        {"trainer.length": "5 epochs", "seed": 3},
        {"trainer": {"length": "5 epochs"}, "seed": 3},
        ["trainer.length=5 epochs", "seed=3"],
    ],
)
def test_every_form_changes_the_same_keys_and_no_others(tiny_pipeline, overrides):
    pipeline = Engine().pipeline(tiny_pipeline(), overrides)
    assert (pipeline.trainer.options.length, pipeline.seed) == ("5 epochs", 3)
    assert pipeline.trainer.options.batch_size == 16


def test_a_number_in_a_key_counts_within_an_array(tiny_pipeline):
    tables = tiny_pipeline(
        sampler=[{"type": "greedy"}, {"type": "temperature", "temperature": 1.0}]
    )
    pipeline = Engine().pipeline(
        tables, {"sampler": {"1": {"temperature": 0.5}}, "sampler.0": {"type": "temperature"}}
    )
    assert [choice.name for choice in pipeline.samplers] == ["temperature", "temperature"]
    assert pipeline.samplers[1].options.temperature == 0.5
