"""Errors that say what to write, and overrides that choose another component."""

from __future__ import annotations

from typing import Any

import pytest

from textgen import Engine, PipelineError

TABLES: dict[str, Any] = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn", "cell": "gru", "hidden_size": 12},
    "trainer": {"type": "adamw", "length": "3 steps"},
}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.type=lstm", "did you mean 'rnn'? A recurrent network, plain, GRU or LSTM"),
        ("model.type=ngram", 'model \'ngram\' goes with trainer "count", given "adamw"'),
        ("trainer.type=count", 'trainer \'count\' goes with model "ngram", given "rnn"'),
    ],
)
def test_an_error_says_what_to_write(override: str, said: str) -> None:
    with pytest.raises(PipelineError) as raised:
        Engine().pipeline(TABLES, [override])
    assert said in str(raised.value)
    assert len(raised.value.faults) == 1  # and nothing about the keys of the component of before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.learning_rate=0.1", "unknown key; did you mean 'trainer.first.learning_rate'?"),
        ("trainer.length='5s'", "unknown key; did you mean 'trainer.first.length'?"),
        ("model.order=3", "unknown key; did you mean 'model.second.order'?"),
        ("trainer.frist.length='5s'", "unknown key; did you mean 'first'?"),
        ("trainer.first.length=1.5 steps", 'must be a time such as "60s", "5 min" or "1.5h", or a'),
        ("trainer.second.max_tokens=0", "trainer.second.max_tokens: must be >= 1, given 0"),
    ],
)
def test_an_error_in_a_mixture_says_what_to_write(override: str, said: str) -> None:
    trainer = {"type": "mixture", "first": {"type": "adamw"}, "second": {"type": "count"}}
    mixture = {"type": "mixture", "first": {"type": "rnn"}, "second": {"type": "ngram"}}
    with pytest.raises(PipelineError) as raised:
        Engine().pipeline({**TABLES, "model": mixture, "trainer": trainer}, [override])
    assert said in str(raised.value)


@pytest.mark.parametrize("turned", [False, True], ids=["type-first", "type-last"])
def test_another_type_drops_the_keys_of_the_one_before(turned: bool) -> None:
    overrides = ["model.type=ngram", "model.order=3", "trainer.type=count"]
    pipeline = Engine().pipeline(TABLES, overrides[::-1] if turned else overrides)
    assert pipeline.model.options.order == 3
    kept = Engine().pipeline(TABLES, ["model.type=rnn"])
    assert kept.model.options.hidden_size == 12


def test_what_an_error_names_can_be_typed_back() -> None:
    tables = {
        **TABLES,
        "sampler": [{"type": "top-k"}, {"type": "gredy"}],
        "generate": {"stop": ["a", 1]},
    }
    with pytest.raises(PipelineError) as raised:
        Engine().pipeline(tables)
    paths = [fault.path for fault in raised.value.faults]
    assert paths == ["sampler.1.type", "generate.stop"]
    made = Engine().pipeline(
        tables, [f"{path}={value}" for path, value in zip(paths, ("greedy", "none"), strict=True)]
    )
    assert (made.generate.stop, made.samplers[1].name) == ("none", "greedy")
