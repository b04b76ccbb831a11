"""Counting in bounded memory: the same counts as in memory, models that leave n-grams out, and how it ends."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted import CONTEXT, HELD_OUT, TEXT, dataset, pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen import Engine, Interrupted, PipelineError, TrainingError, load
from textgen.data import Dataset
from textgen_builtins.models.ngram import bounded
from textgen_builtins.models.ngram.bounded import BoundedCounter, Budget
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel
from textgen_builtins.models.ngram.trie import Trie

CHARACTERS = sorted(set(TEXT))
TOKENS = np.array([CHARACTERS.index(c) for c in TEXT])
SIZE = len(CHARACTERS)


def in_shards(
    tokens: Any,
    vocab_size: int,
    order: int,
    budget: Budget,
    prune_entropy: float = 0.0,
    end: int | None = None,
) -> Trie:
    counter = BoundedCounter(np.asarray(tokens), vocab_size, order, budget, prune_entropy, end)
    for _ in counter.run():
        pass
    return counter.trie


def at_once(tokens: Any, vocab_size: int, order: int, end: int | None = None) -> Trie:
    model = NgramModel(order, vocab_size, end=end)
    data = Dataset(
        training=np.asarray(tokens),
        validation=np.empty(0, np.int64),
        vocab_size=vocab_size,
        window_length=1,
        window_stride=1,
    )
    for _ in CountTrainer(budget=Budget(10**9)).train(model, data, CONTEXT):
        pass
    return model.trie


@settings(max_examples=12, deadline=None)
@given(
    vocab_size=st.sampled_from(
        [2, 3, 11, 300, 70_000]
    ),  # 70,000 to the fourth does not fit into a word
    order=st.integers(1, 12),
    seed=st.integers(0, 9),
    length=st.integers(13, 150),
    rows=st.sampled_from([20, 60, 10_000]),
    end=st.integers(0, 12),
)
def test_counts_are_those_of_the_whole_text(
    vocab_size: int, order: int, seed: int, length: int, rows: int, end: int
) -> None:
    tokens = np.random.default_rng(seed).integers(0, min(vocab_size, 4), length) * (
        (vocab_size - 1) // 3 or 1
    )
    tokens %= vocab_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "_LEAST_ROWS", rows)
        found = in_shards(tokens, vocab_size, order, Budget(1, 1, (0,)), end=int(tokens[end]))
    expected = at_once(tokens, vocab_size, order, end=int(tokens[end]))
    assert found.sizes == expected.sizes
    np.testing.assert_array_equal(found.keys, expected.keys)
    np.testing.assert_array_equal(found.counts, expected.counts)


def test_several_processes_and_a_mapped_file_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_LEAST_ROWS", 3_000)
    file = tmp_path / "tokens.bin"
    np.concatenate([[9, 9, 9], TOKENS]).astype(np.uint8).tofile(file)
    mapped = np.memmap(file, np.uint8, "r", offset=1)[2:]
    found, expected = in_shards(mapped, SIZE, 5, Budget(1, 2, (0,))), at_once(TOKENS, SIZE, 5)
    np.testing.assert_array_equal(found.keys, expected.keys)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert list(tmp_path.iterdir()) == [file]


@settings(max_examples=8, deadline=None)
@given(
    prune=st.lists(st.integers(0, 3) | st.just(10**6), max_size=4).map(
        lambda more: (0, *itertools.accumulate(more))
    ),
    prune_entropy=st.sampled_from([0.0, 1e-5, 1e-3, 10.0]),
    order=st.integers(2, 6),
)
def test_what_is_left_is_a_distribution(
    prune: tuple[int, ...], prune_entropy: float, order: int
) -> None:
    tokens = TOKENS[:3_000]
    trie, whole = (
        in_shards(tokens, SIZE, order, Budget(1, 1, prune), prune_entropy),
        at_once(tokens, SIZE, order),
    )
    model = NgramModel(order, SIZE)
    model.load_tensors(trie.tensors())
    rows = np.exp(model.decoder(1).score(TOKENS[None, 2_000:3_500])[0].astype(np.float64))
    np.testing.assert_allclose(rows.sum(axis=-1), 1, rtol=1e-5)
    assert trie.sizes[0] == whole.sizes[0]
    occurring = [np.unique(np.lib.stride_tricks.sliding_window_view(tokens, n + 1), axis=0, return_counts=True)[1]
                 for n in range(order)]  # fmt: skip
    most = [int((each > prune[min(n, len(prune) - 1)]).sum()) for n, each in enumerate(occurring)]
    if prune_entropy:
        assert all(size <= limit for size, limit in zip(trie.sizes, most, strict=True))
    else:
        assert list(trie.sizes) == most


def test_what_is_left_out_counts_for_what_is_left() -> None:
    """By hand, as KenLM prunes: "a b" twice and "a c" once, of which the latter is left out."""
    tokens = np.array([0, 1, 0, 1, 0, 2])
    trie = in_shards(tokens, 3, 2, Budget(1, 1, (0, 1)))
    row = np.empty((1, 3), np.float32)
    trie.probabilities(trie.advance(np.zeros(1, np.int64), np.array([0])), row)
    # Preceded by: a by the beginning and b, b by a, c by a. The discounts are the fallback, 0.5, 1 and 1.5.
    below = (np.array([2, 1, 1]) - [1, 0.5, 0.5] + 2 / 3) / 4
    expected = (
        np.array([0, 2 - 1, 0]) / 3 + (1 + 1) / 3 * below
    )  # of 3: one discount, and the count of "a c"
    np.testing.assert_allclose(row[0], expected, rtol=1e-6)


def test_entropy_leaves_out_what_matters_least() -> None:
    """A third fewer n-grams, and other text is predicted about as well as before."""
    training, other = TOKENS[:-2_000], TOKENS[-2_000:]
    whole = at_once(training, SIZE, 5)
    pruned = in_shards(training, SIZE, 5, Budget(1, 1, (0,)), 1.2e-5)
    assert len(pruned.keys) < 0.67 * len(whole.keys)
    assert (pruned.loss(other) or 9) < (whole.loss(other) or 0) + 0.03


def test_a_model_that_is_too_large_for_the_memory_leaves_out_what_is_rare() -> None:
    counter = BoundedCounter(TOKENS, SIZE, 6, Budget(400 * 12_000, 1))
    steps = list(counter.run())
    assert counter.prune[:2] == (0, 0)
    assert counter.prune[2] == counter.prune[5] > 0
    assert len(counter.trie.keys) <= 12_000
    assert sum(step.tokens for step in steps) == len(TOKENS)


def test_a_pipeline_prunes_and_is_evaluated_generated_from_and_loaded(tmp_path: Path) -> None:
    trainer = {
        "type": "count",
        "prune": [0, 0, 1],
        "prune_entropy": 1e-6,
        "memory": "200MB",
        "processes": 1,
    }
    run = Engine().run(pipeline(tmp_path, {"type": "ngram"}, trainer), output=tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["step"] == record["steps"], "how many steps it takes is known in the end"
    again = load(tmp_path / "run")
    assert (
        again.generate("The ", max_new_tokens=30).text
        == run.generator.generate("The ", max_new_tokens=30).text
    )
    assert again.score(HELD_OUT).loss == pytest.approx(run.generator.score(HELD_OUT).loss)
    whole = Engine().run(
        pipeline(tmp_path, {"type": "ngram"}, {"type": "count"}), output=tmp_path / "whole"
    )
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("run", "whole")]
    assert sizes[0] < 0.8 * sizes[1]
    assert run.generator.score(HELD_OUT).loss < whole.generator.score(HELD_OUT).loss + 0.2


def test_training_starts_again_wherever_it_stopped() -> None:
    data = dataset(TOKENS[:3_000], SIZE)
    budget = Budget(1, 1, (0, 0, 1))
    whole = NgramModel(3, SIZE)
    events = list(CountTrainer(budget=budget).train(whole, data, CONTEXT))
    assert [event.step for event in events[:-1]] == list(range(1, len(events)))
    for stop in (0, 1, len(events) - 1, len(events)):
        trainer, model = CountTrainer(budget=budget), NgramModel(3, SIZE)
        training = trainer.train(model, data, CONTEXT)
        for _ in range(stop):
            next(training)
        resumed, fresh = CountTrainer(budget=budget), NgramModel(3, SIZE)
        resumed.load_state(trainer.state())
        fresh.load_tensors(model.tensors())
        assert list(resumed.train(fresh, data, CONTEXT)) == (events if stop < len(events) else [])
        for name, array in whole.tensors().items():
            np.testing.assert_array_equal(fresh.tensors()[name], array)


def test_a_stopped_run_leaves_nothing_behind_and_counts_again(tmp_path: Path) -> None:
    trainer = {"type": "count", "prune": [0, 0, 1], "processes": 2}
    tables = pipeline(
        tmp_path, {"type": "ngram", "order": 4, "word_contexts": 0, "recent": 0}, trainer
    )
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        Engine().run(tables, output=tmp_path / "run", cancelled=lambda: next(asked))
    assert not [path.name for path in (tmp_path / "run").glob(".partial*")]
    run = Engine().run(tables, output=tmp_path / "run")
    assert run.generator.model.trie.sizes == in_shards(TOKENS[: len(TOKENS) - len(TOKENS) // 10], SIZE, 4,
                                                       Budget(1, 1, (0, 0, 1))).sizes  # fmt: skip


def test_a_process_that_ends_ends_the_run_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false") or "false")
    tables = pipeline(
        tmp_path, {"type": "ngram"}, {"type": "count", "prune": [0, 1], "processes": 2}
    )
    with pytest.raises(TrainingError, match=r"a process that counts ended.*lower trainer.memory"):
        Engine().run(tables, output=tmp_path / "run")
    assert not [path.name for path in (tmp_path / "run").glob(".partial*")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "5MB"}, "at least 200MB"),
        ({"memory": "much"}, 'a size such as "500MB"'),
        ({"prune": [1]}, "begin with 0, and no count be less"),
        ({"prune": [0, 2, 1]}, "begin with 0, and no count be less"),
        ({"processes": -1}, "processes"),
    ],
)
def test_refuses_options_that_cannot_be(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=message):
        Engine().pipeline(pipeline(tmp_path, {"type": "ngram"}, {"type": "count", **options}))


def test_refuses_totals_that_contradict_the_counts() -> None:
    tensors = in_shards(TOKENS[:2_000], SIZE, 3, Budget(1, 1, (0, 0, 1))).tensors()
    for name, value in (("totals", tensors["totals"] * 0), ("discounts", tensors["discounts"] * 9)):
        with pytest.raises(ValueError, match=r"total is below|discount is not"):
            NgramModel(3, SIZE).load_tensors(tensors | {name: value})


def test_a_sample_is_counted_from_the_beginning_to_the_end_of_the_text(tmp_path: Path) -> None:
    trainer = {"type": "count", "max_tokens": 3_200}
    run = Engine().run(
        pipeline(tmp_path, {"type": "ngram", "word_contexts": 0, "order": 2}, trainer),
        output=tmp_path / "run",
    )
    tokenizer, training = run.generator.tokenizer, TEXT[: len(TEXT) - len(TEXT) // 10]
    ids = np.asarray(tokenizer.encode(training))
    length, last = 3_200 // 64, len(ids) - 3_200 // 64
    sample = np.concatenate([ids[i * last // 63 : i * last // 63 + length] for i in range(64)])
    expected = at_once(sample, tokenizer.vocab_size, 2)
    assert load(run.path).generate("The ", max_new_tokens=5).text
    from safetensors.numpy import load_file

    counts = load_file(run.path / "model.safetensors")["counts"]
    assert sorted(counts.tolist()) == sorted(expected.counts.tolist())
