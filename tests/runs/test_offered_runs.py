"""Runs that plugins offer by name, to start from or to load."""

from functools import partial
from pathlib import Path

import pytest
import tomli_w
from components import Utf8, plugin_of
from raising import raises
from small_run import OTHER, TEXT, tables, tree, tuned

import textgen
from textgen import Component, NoOptions

near = partial(pytest.approx, abs=1e-3)


def offering(*runs):
    """An engine with a package textgen-N for each run, which offers it as `tiny`."""
    plugins = textgen.PluginSet.discover()
    for number, run in enumerate(runs):
        offered = [Component("tiny", NoOptions, lambda config, context, run=run: run)]
        plugins.register(plugin_of(run=offered), "tiny", distribution=f"textgen-{number}")
    return textgen.Engine(plugins)


def test_a_run_that_a_plugin_offers_is_started_from_by_its_name(folder, base):
    engine = offering(base)
    given = tuned(folder, model={"start": "tiny"})
    run = engine.run(given, output=folder / "tuned")
    made = run.generator.tables
    assert (made["model"]["start"], made["tokenizer"]["start"]) == ("tiny", "tiny")
    by_path = textgen.run(tuned(folder), output=folder / "by-path")
    assert tree(run.path)["model.safetensors"] == tree(by_path.path)["model.safetensors"]
    assert len(textgen.load(run.path).generate("", max_new_tokens=3).tokens) == 3
    with raises(textgen.PipelineError, argument="model.start"):
        textgen.run(given, output=folder / "other")
    with pytest.raises(textgen.RunError, match="did you mean 'tiny'"):
        engine.load("tinny")
    qualified = tuned(folder, model={"start": "textgen-0:tiny"})
    assert engine.run(qualified, output=run.path).outcome == "skipped"


def test_tables_that_a_plugin_offers_load_themselves_and_are_started_from(folder):
    offered = {
        "tokenizer": {"type": "odd"},
        "model": {"type": "rnn", "hidden_size": 8},
        "start": {"model": {"dropout": 0.1}},
        "generate": {"max_new_tokens": 5},
    }
    plugins = textgen.PluginSet.discover()
    named = [Component("tiny", NoOptions, lambda config, context: offered)]
    plugins.register(plugin_of(run=named, tokenizer=lambda context: Utf8()), "tiny")
    engine = textgen.Engine(plugins)
    with engine.load("tiny") as generator:
        assert len(generator.generate("A ").tokens) == 5
        assert generator.score(TEXT).loss == near(engine.load("tiny").score(TEXT).loss)
        assert "dropout" not in generator.tables["model"]
    given = tuned(folder, model={"start": "tiny", "cell": "gru"})
    (folder / "other.txt").write_text(OTHER)
    made = engine.run(given, output=folder / "tuned").generator.tables
    assert (made["model"]["hidden_size"], made["model"]["cell"]) == (8, "gru")
    assert made["model"]["dropout"] == 0.1
    assert made["tokenizer"] == {"type": "unpackaged:odd"}
    assert "start" not in made["model"]
    del offered["tokenizer"]
    with raises(textgen.ContractError, kind="run", component="tiny"):
        engine.load("tiny")


def test_a_name_is_loaded_and_a_path_says_that_it_is_one(folder, base, monkeypatch):
    monkeypatch.chdir(folder)
    engine, cells = offering(base), {}
    assert engine.load("tiny").path == base
    other = textgen.run(tables(folder, "sgd", cell="lstm"), output="tiny").path
    assert engine.load("tiny").path == other, "a folder comes first"
    for start in ("tiny", "./tiny"):
        (folder / "p.toml").write_text(tomli_w.dumps(tuned(folder, model={"start": start})))
        cells[start] = engine.pipeline(folder / "p.toml").model.options.cell
    assert cells == {"tiny": "gru", "./tiny": "lstm"}


@pytest.mark.parametrize(
    ("runs", "error", "said"),
    [
        (
            ("a", "b"),
            textgen.PipelineError,
            "'textgen-0:tiny'",
        ),
        (("a",), textgen.ContractError, "run 'tiny' gave str"),
        (
            ({"tokenizer": {"type": "char", "start": "runs/base"}, "model": {"type": "rnn"}},),
            textgen.ContractError,
            "run 'tiny' .* 'tokenizer'",
        ),
        (
            (
                {
                    "tokenizer": {"type": "bpe"},
                    "model": {"type": "mixture", "first": {"type": "rnn", "start": "runs/base"}},
                },
            ),
            textgen.ContractError,
            "run 'tiny' .* 'model'",
        ),
        ((Path("nowhere"),), textgen.PipelineError, "nowhere"),
    ],
)
def test_a_run_that_cannot_be_started_from_names_its_plugins(folder, base, runs, error, said):
    with pytest.raises(error, match=said):
        offering(*runs).run(tuned(folder, model={"start": "tiny"}), output=folder / "tuned")
