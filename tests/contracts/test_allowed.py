"""What a contract allows, however odd it looks, and what fails without costing a run."""

import functools
import types
from collections import deque

import attrs
import pytest
from test_blame import Training, broken, leaving, model, run_odd, trainer

import textgen
from textgen import Component
from textgen.events import Evaluation
from textgen_builtins.models.ngram.model import NgramDecoder


def test_an_observer_that_fails_is_left_out(tiny_pipeline):
    watching = types.SimpleNamespace(observe=leaving)
    with pytest.warns(textgen.PluginWarning, match="textgen-odd") as warned:
        assert run_odd(tiny_pipeline(), observer=broken(watching)).outcome == "trained"
    assert "test_blame.py:" in str(warned[0].message)


def test_what_can_be_called_is_called(tiny_pipeline):
    """Names and defaults are the author's, a decorator may bring arguments of its own, and a
    function in C may not tell them.
    """

    @functools.wraps(lambda more, these, _: these)
    def decorated(*arguments):
        return arguments[0]

    seen = []

    class Named:
        def observe(self, happened, _when="now"):
            seen.append(happened)

    run_odd(tiny_pipeline(), sampler=broken(decorated), observer=broken(Named()))
    assert any(isinstance(event, Evaluation) for event in seen)
    run_odd(tiny_pipeline(), observer=broken(types.SimpleNamespace(observe=deque().append)))


def test_a_model_may_want_to_be_trained_before_it_generates(tiny_pipeline):
    trained = []

    def extend(decoder, tokens):
        if not trained:
            raise textgen.UsageError("train it first")
        return NgramDecoder.extend(decoder, tokens)

    def train(self, model, data, context):
        trained.append(True)
        return Training.train(self, model, data, context)

    parts = {"model": functools.partial(model, extend=extend)}
    run = run_odd(tiny_pipeline(), **parts, trainer=broken(trainer(train=train)))
    assert run.outcome == "trained"


def test_a_build_that_changes_its_options_changes_no_run(tiny_pipeline):
    @attrs.frozen
    class Config:
        """Has options that can be changed in place."""

        names: list[str] = textgen.option(factory=lambda: ["a"], help="names")

    def build(config, context):
        config.names.append("b")
        return lambda logits, history: logits

    odd = [Component("odd", Config, build)]
    written = run_odd(tiny_pipeline(), sampler=odd).path / "pipeline.toml"
    before = written.read_bytes()
    assert run_odd(tiny_pipeline(), sampler=odd).outcome == "skipped"
    assert written.read_bytes() == before
