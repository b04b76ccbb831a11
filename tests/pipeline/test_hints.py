"""Errors that say what to write, and overrides that choose another component."""

from __future__ import annotations

from typing import Any

import pytest

from textgen import Engine, PipelineError

TABLES: dict[str, Any] = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn", "cell": "gru", "hidden_size": 12},
    "trainer": {"type": "adamw", "steps": 3},
}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.type=lstm", 'write type = "rnn" and cell = "lstm"'),
        ("model.type=GRU", 'write type = "rnn" and cell = "gru"'),
        ("tokenizer.type=bpe", "textgen-huggingface"),
        ("model.type=ngram", 'model \'ngram\' goes with trainer "count", given "adamw"'),
        ("trainer.type=count", 'trainer \'count\' goes with model "ngram", given "rnn"'),
    ],
)
def test_an_error_says_what_to_write(override: str, said: str) -> None:
    with pytest.raises(PipelineError) as raised:
        Engine().pipeline(TABLES, [override])
    assert said in str(raised.value)
    assert len(raised.value.faults) == 1  # and nothing about the keys of the component of before


@pytest.mark.parametrize("turned", [False, True], ids=["type-first", "type-last"])
def test_another_type_drops_the_keys_of_the_one_before(turned: bool) -> None:
    overrides = ["model.type=ngram", "model.order=3", "trainer.type=count"]
    pipeline = Engine().pipeline(TABLES, overrides[::-1] if turned else overrides)
    assert pipeline.model.options.order == 3
    kept = Engine().pipeline(TABLES, ["model.type=rnn"])
    assert kept.model.options.hidden_size == 12
