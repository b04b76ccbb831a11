"""A component among the options of another: `[model.first]` below `[model]`."""

import attrs
import pytest
from components import engine_of

import textgen
from textgen import Component, option


@attrs.frozen
class WrappedConfig:
    """Another model, as it is."""

    inner: textgen.ConfiguredComponent = option(
        {"type": "rnn", "hidden_size": 8}, kind="model", help="the model"
    )


@pytest.fixture
def engine():
    def build(config, context):
        return context.build(config.inner)

    return engine_of(model=[Component("wrapped", WrappedConfig, build)])


@pytest.mark.parametrize(
    ("inner", "paths"),
    [
        (
            {"type": "rnn", "hidden_size": 0, "sell": "gru"},
            {"model.inner.hidden_size", "model.inner.sell"},
        ),
        ({"type": "rnm"}, {"model.inner.type"}),
        (3, {"model.inner"}),
    ],
)
def test_the_inner_table_is_checked_at_its_place(engine, tiny_pipeline, inner, paths):
    tables = {**tiny_pipeline(), "model": {"type": "wrapped", "inner": inner}}
    with pytest.raises(textgen.PipelineError) as raised:
        engine.pipeline(tables)
    assert {fault.path for fault in raised.value.faults} == paths


def test_it_is_overridden_recorded_skipped_and_loaded(engine, tiny_pipeline):
    model = {"type": "wrapped", "inner": {"type": "rnn", "hidden_size": 8}}
    made = engine.run({**tiny_pipeline(), "model": model}, {"model.inner.cell": "gru"})
    models = {
        entry["name"]: entry["distribution"]
        for entry in made.generator.record["components"]
        if entry["kind"] == "model"
    }
    assert models == {"wrapped": "textgen-odd", "rnn": "textgen-engine"}
    saved = made.path / "pipeline.toml"
    assert engine.run(saved).outcome == "skipped"
    inner = engine.pipeline(saved).model.options.inner.options
    assert (inner.cell, inner.hidden_size) == ("gru", 8)
    with pytest.raises(textgen.RunMismatchError) as raised:
        engine.run(saved, {"model.inner.hidden_size": 9})
    assert [d.key for d in raised.value.differences] == ["model.inner.hidden_size"]
    text = engine.load(made.path).generate("the", max_new_tokens=20).text
    assert text == made.generator.generate("the", max_new_tokens=20).text
