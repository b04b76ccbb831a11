"""What the tests of training by gradient share: small runs, whole or in parts."""

import itertools

import pytest

import textgen

TEXT = "the clock struck nine and no one came. " * 30
VOCAB_SIZE = len(set(TEXT)) + 1


def pipeline(trainer, **model):
    """A run of a few seconds at most."""
    return {
        "device": "cpu",
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "cell": "gru", "hidden_size": 12, "dropout": 0.2, **model},
        "trainer": {
            "type": "adamw",
            "length": "30 steps",
            "batch_size": 8,
            "order": "streams",
            **trainer,
        },
        "observer": [],
        "generate": {"max_new_tokens": 5},
    }


def train(model, **more):
    """A run with TEXT."""
    given = {
        "corpus": TEXT,
        "tokenizer": "char",
        "trainer": {"type": "adamw", "length": "8 steps", "batch_size": 6, "order": "streams"},
        "data": {"window_length": 12},
        "device": "cpu",
    }
    return textgen.train(model=model, **given | more)


def run_in_parts(run, output, stops):
    """Interrupt after each of so many steps, then finish."""
    for stop in stops:
        steps = itertools.count(1)
        with pytest.raises(textgen.Interrupted):
            run(output=output, cancelled=lambda steps=steps, stop=stop: next(steps) > stop)
    return run(output=output)
