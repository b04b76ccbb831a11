"""A component among the options of another: `[model.first]` below `[model]`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import textgen
from textgen import (
    BuildContext,
    Component,
    Engine,
    PipelineError,
    PluginSet,
    RunMismatchError,
    hookimpl,
    option,
)
from textgen_builtins.commands.show import commented_toml

SMALL = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "trainer": {"type": "sgd", "length": "1 epoch", "batch_size": 8},
    "data": {"windows": [16, 4]},
    "generate": {"max_new_tokens": 20},
    "device": "cpu",
    "observer": [],
}


@attrs.frozen
class WrappedConfig:
    """Another model, as it is."""

    inner: textgen.Choice = option(
        {"type": "rnn", "hidden_size": 8}, kind="model", help="the model"
    )


class Wrapping:
    """A plugin with a model that is made of another."""

    @hookimpl
    def textgen_models(self) -> list[Component]:
        return [Component("wrapped", WrappedConfig, build)]


def build(config: WrappedConfig, context: BuildContext) -> Any:
    return context.build(config.inner)


@pytest.fixture
def engine() -> Engine:
    plugins = PluginSet.discover()
    plugins.register(Wrapping(), "wrapping", distribution="wrapping-package", version="1")
    return Engine(plugins)


def pipeline(**inner: Any) -> dict[str, Any]:
    return {**SMALL, "model": {"type": "wrapped", **({"inner": inner} if inner else {})}}


def test_the_inner_table_is_checked_at_its_place(engine: Engine) -> None:
    with pytest.raises(PipelineError) as raised:
        engine.pipeline(pipeline(type="rnn", hidden_size=0, sell="gru"))
    assert {fault.path for fault in raised.value.faults} == {
        "model.inner.hidden_size",
        "model.inner.sell",
    }
    with pytest.raises(PipelineError) as raised:
        engine.pipeline(pipeline(type="rnm"))
    (fault,) = raised.value.faults
    assert fault.path == "model.inner.type"
    assert "rnn" in str(fault)
    with pytest.raises(PipelineError, match=r"model\.inner"):
        engine.pipeline({**SMALL, "model": {"type": "wrapped", "inner": 3}})


def test_overrides_reach_into_it(engine: Engine) -> None:
    made = engine.pipeline(pipeline(type="rnn"), ["model.inner.hidden_size=5"])
    assert made.model.options.inner.options.hidden_size == 5


def test_it_is_shown_with_defaults_and_reads_as_the_same_pipeline(engine: Engine) -> None:
    made = engine.pipeline(pipeline())
    shown = tomllib.loads(commented_toml(made, str(made.output)))
    assert shown["model"]["inner"]["hidden_size"] == 8
    assert shown["model"]["inner"]["cell"] == "rnn"
    assert engine.pipeline(shown).to_dict() == made.to_dict()


def test_a_run_records_skips_and_loads_it(engine: Engine, tmp_path: Path) -> None:
    made = engine.run(pipeline(), output=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {"model", "trainer"} <= {entry["kind"] for entry in record["components"]}
    models = {
        entry["name"]: entry["distribution"]
        for entry in record["components"]
        if entry["kind"] == "model"
    }
    assert models == {"wrapped": "wrapping-package", "rnn": "textgen-engine"}
    assert engine.run(pipeline(), output=tmp_path / "run").outcome == "skipped"
    with pytest.raises(RunMismatchError) as raised:
        engine.run(pipeline(type="rnn", hidden_size=9), output=tmp_path / "run")
    assert [d.key for d in raised.value.differences] == ["model.inner.hidden_size"]
    text = engine.load(tmp_path / "run").generate("The", max_new_tokens=20).text
    assert text == made.generator.generate("The", max_new_tokens=20).text
    assert np.array_equal(
        engine.load(tmp_path / "run").model.tensors()["head.bias"],
        made.generator.model.tensors()["head.bias"],
    )


def test_a_context_that_no_engine_made_says_so(tmp_path: Path) -> None:
    choice = Engine().pipeline({**SMALL, "model": {"type": "rnn"}}).model
    with pytest.raises(ValueError, match="not made by an engine"):
        BuildContext(folder=tmp_path).build(choice)
