"""The built-in set keeps its contracts."""

import pytest
from checking import PLUGINS, ROOT

from textgen.testing import check

pytestmark = pytest.mark.slow  # every check of every component

SMALL_RNN = {"type": "rnn", "hidden_size": 8}
OPTIONS = {
    "char": [
        {},
        {"letters_only": True, "lower_case": True},
    ],
    "rnn": [
        {"cell": "lstm", "hidden_size": 5, "dropout": 0.2, "layers": 2, "embedding_size": 4},
        {"cell": "gru", "hidden_size": 6, "embedding_size": 6, "tied_weights": True},
    ],
    "ngram": [{"order": 4, "cache_tokens": 30}, {"order": 1, "cache_tokens": 0}],
    "model mixture": [
        {"first": SMALL_RNN},
        {"first": {"type": "ngram", "order": 2}, "second": SMALL_RNN},
    ],
    "trainer mixture": [{"first": {"type": "sgd", "length": "2 epochs", "batch_size": 16}}],
    "sgd": [
        {"length": "2 epochs", "momentum": 0.9},
        {"length": "2 epochs", "order": "streams", "batch_size": 8},
    ],
    "adamw": [{"length": "2 epochs", "learning_rate": 0.02, "evaluate_every": 1}],
    "logit-bias": [{"bias": {"e": 2.0, "T": -50.0}}],
    "temperature": [{"temperature": 0.3}, {"temperature": 0.0}],
    "top-k": [{"k": 3}],
    "xtc": [{"probability": 0.5}],
    "dry": [{"multiplier": 0.8}],
    "format": [
        {"regex": "(the|a) [a-z]{3,9}"},
        {"schema": '{"type": "integer"}'},
    ],
    "file": [
        {"path": str(ROOT / "README.md")},
        {"path": str(ROOT / "docs"), "glob": "*.md"},
    ],
    "samples": [{"characters": 9}],
    "beam": [{"beams": 2}, {"groups": 2}],
    "best-of": [{"n": 3}],
    "guidance": [{"negative_prompt": "and "}],
    "banned-phrases": [{"phrases": ["the", "e w"]}],
    "fill": [{"suffix": "the", "candidates": 2}],
}
BUILT_IN = [
    pytest.param(
        offer.kind,
        offer.component,
        options,
        id=f"{offer.kind}-{offer.component.name}-{number}",
        marks=[pytest.mark.slow] if number else [],
    )
    for offer in PLUGINS.offers()
    if offer.component.name != "time-machine"  # which is downloaded
    for number, options in enumerate(
        OPTIONS.get(offer.component.name, OPTIONS.get(f"{offer.kind} {offer.component.name}", [{}]))
    )
]
SGD, COUNT = {"type": "sgd", "length": "1 epoch", "batch_size": 16}, {"type": "count"}
COUNTERPARTS = {  # what fits a model, or is fitted by a trainer
    "model ngram": {"trainer": COUNT},
    "trainer count": {"model": {"type": "ngram"}},
    "trainer mixture": {"model": {"type": "mixture", "first": SMALL_RNN}},
}


@pytest.mark.parametrize(("kind", "component", "options"), BUILT_IN)
def test_the_built_in_set_passes(kind, component, options):
    pipeline = dict(COUNTERPARTS.get(f"{kind} {component.name}", {}))
    if (kind, component.name) == ("model", "mixture"):
        first, second = (COUNT, SGD) if "second" in options else (SGD, COUNT)
        pipeline["trainer"] = {"type": "mixture", "first": first, "second": second}
    if component.name == "format":
        pytest.importorskip("llguidance")
    outcomes = check(kind, component, options=options, pipeline=pipeline, plugins=PLUGINS)
    skipped = {outcome.statement.anchor for outcome in outcomes if outcome.status == "skipped"}
    assert skipped <= allowed(component.name, options)


def allowed(name, options):
    """The statements that do not concern a component."""
    if options.get("letters_only"):
        return {"tokenizer-unknown"}
    is_module = name not in ("ngram", "mixture")
    return set() if is_module else {"model-forward", "model-dropout"}
