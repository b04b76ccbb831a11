"""Overrides of a pipeline: as strings, as mappings, and what is wrong with them."""

import pytest
from test_config import BASE, changed, faults

from textgen import PipelineError


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=18446744073709551615", "seed", 2**64 - 1),
        ("trainer.learning_rate = 3", "trainer.learning_rate", 3.0),
        ("tokenizer.lower_case=true", "tokenizer.lower_case", True),
        ("model.cell=lstm", "model.cell", "lstm"),
        ('model.cell="gru"', "model.cell", "gru"),
        ("generate.prompt=it has", "generate.prompt", "it has"),
        ("generate.prompt='  it has'", "generate.prompt", "  it has"),
        ("generate.prompt=a=b", "generate.prompt", "a=b"),
        ("generate.prompt=", "generate.prompt", ""),
        ("generate.prompt=one\ntwo = 2", "generate.prompt", "one\ntwo = 2"),
        ("generate.stop=none", "generate.stop", "none"),
        ("generate.stop_tokens=[1, 2]", "generate.stop_tokens", [1, 2]),
        ("sampler.1.temperature=0.5", "sampler.1.temperature", 0.5),
        ('sampler=[{type="temperature", temperature=2}]', "sampler.0.temperature", 2.0),
        ('sampler.0={type="temperature", temperature=2}', "sampler.0.temperature", 2.0),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_string(engine, override, path, value):
    tables = {**BASE, "sampler": [{"type": "greedy"}, {"type": "temperature"}]}
    place = engine.pipeline(tables, [override, override]).to_dict()
    for part in path.split("."):
        place = place[int(part)] if isinstance(place, list) else place[part]
    assert (place, type(place)) == (value, type(value))


@pytest.mark.parametrize(
    ("override", "path", "said"),
    [
        ("seed", "", "expected KEY=VALUE, as in trainer.batch_size=8"),
        ("=5", "", "expected KEY=VALUE"),
        ("trainer..batch_size=5", "", "expected KEY=VALUE"),
        ("generate.stop=[1,", "generate.stop", "not a TOML value"),
        ('output="half', "output", "not a TOML value"),
        ("generate.stop=" + "[" * 100_000, "generate.stop", "not a TOML value"),
        ("corpus.type.x=5", "corpus.type.x", "no such key"),
        ("sampler.7.temperature=5", "sampler.7.temperature", "a list takes numbers, here 0 to 0"),
        ("sampler.temperature=5", "sampler.temperature", "a list takes numbers, here 0 to 0"),
        ("trainer.batch_size=two", "trainer.batch_size", 'expected an integer, given "two"'),
        ("seed=" + "9" * 5000, "seed", "expected an integer"),
    ],
)
def test_a_broken_override_is_a_fault(engine, override, path, said):
    (found,) = faults(engine, {**BASE, "sampler": [{"type": "greedy"}]}, [override])
    assert found.path == path
    assert said in str(found)
    assert len(str(found)) < 400


def test_broken_overrides_are_reported_at_once(engine):
    with pytest.raises(PipelineError) as caught:
        engine.pipeline(BASE, ["seed", "output=["])
    assert (caught.value.source, len(caught.value.faults)) == ("overrides", 2)


@pytest.mark.parametrize("turned", [1, -1], ids=["type-first", "type-last"])
def test_another_type_drops_the_keys_of_the_one_before(engine, turned):
    tables = changed("model.hidden_size", 12)
    overrides = ["model.type=ngram", "model.order=3", "trainer.type=count"]
    assert engine.pipeline(tables, overrides[::turned]).model.options.order == 3
    assert engine.pipeline(tables, ["model.type=rnn"]).model.options.hidden_size == 12


@pytest.mark.parametrize(
    "overrides",
    [
        {"trainer.length": "5 epochs", "seed": 3, "sampler.1.temperature": 0.5},
        {"trainer": {"length": "5 epochs"}, "seed": 3, "sampler": {"1": {"temperature": 0.5}}},
        ["trainer.length=5 epochs", "seed=3", "sampler.1.temperature=0.5"],
    ],
)
def test_every_form_changes_the_same_keys_and_no_others(engine, overrides):
    tables = changed("trainer.batch_size", 16)
    tables["sampler"] = [{"type": "greedy"}, {"type": "temperature"}]
    made = engine.pipeline(tables, overrides)
    assert (made.trainer.options.length, made.seed) == ("5 epochs", 3)
    assert made.trainer.options.batch_size == 16
    assert [choice.name for choice in made.sampler] == ["greedy", "temperature"]
    assert made.sampler[1].options.temperature == 0.5
