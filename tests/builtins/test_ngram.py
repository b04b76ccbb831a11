"""The n-gram model: its probabilities against a slow implementation of the paper, and what its
trainer counts.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from counted import CONTEXT, HELD_OUT, TEXT, count, dataset, pipeline
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textgen import Engine, Run
from textgen_builtins.models.ngram import counting
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel

BEGINNING = -1


def reference(
    tokens: Sequence[int], order: int, vocab_size: int, end: int | None = None
) -> Callable[[tuple[int, ...], int], float]:
    """P(token | context) by interpolated modified Kneser-Ney, with dictionaries and loops.

    N-grams that begin with `end`, as those with <s> of KenLM, are counted as often as they occur.
    """
    counts: dict[int, Counter[tuple[int, ...]]] = {}
    for n in range(1, order + 1):
        before = defaultdict(list)
        for i in range(len(tokens) - n + 1):
            before[tuple(tokens[i : i + n])].append(tokens[i - 1] if i else BEGINNING)
        occurs = {gram: n == order or (n > 1 and gram[0] == end) for gram in before}
        counts[n] = Counter(
            {gram: len(b) if occurs[gram] else len(set(b)) for gram, b in before.items()}
        )
    taken = {n: reference_discounts(counts[n]) for n in counts}

    def probability(context: tuple[int, ...], token: int) -> float:
        n = len(context) + 1
        lower = 1 / vocab_size if n == 1 else probability(context[1:], token)
        following = [c for gram, c in counts[n].items() if gram[:-1] == context]
        if not following:
            return lower
        own = counts[n][*context, token]
        freed = sum(taken[n][min(c, 3)] for c in following)
        return (own - taken[n][min(own, 3)] + freed * lower) / sum(following)

    return probability


def reference_discounts(counts: Counter[tuple[int, ...]]) -> list[float]:
    """D for counts of 0, 1, 2, and 3 or more."""
    n1, n2, n3, n4 = (sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))
    if n1 and n2 and n3 and n4:
        y = n1 / (n1 + 2 * n2)
        taken = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        if min(taken[1:]) > 0:
            return taken
    return [0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [2, 3, 40, 400])
@pytest.mark.parametrize("ends", [False, True])
def test_agrees_with_the_reference(order: int, length: int, ends: bool) -> None:
    characters = sorted(set(TEXT[:600]))
    tokens = [
        characters.index(c) for c in TEXT[: length + length // 9]
    ]  # dataset() holds the last tenth out
    size = len(characters) + 1
    training = tokens[: len(tokens) - len(tokens) // 10]
    end = characters.index(" ") if ends else None  # words as documents
    model, probability = count(tokens, size, order, end=end), reference(training, order, size, end)
    contexts = [
        [],
        [characters.index(" ")],
        [size - 1],
        training[-5:],
        training[:3],
        training[2:6],
        [0, 1, 2, 3],
        [size - 1, *training[:2]],
    ]
    for context in contexts:
        row = np.exp(model.decoder(1).extend(np.array([context], np.int64))[0])
        known = tuple(context[max(0, len(context) - order + 1) :])
        expected = [probability(known, token) for token in range(size)]
        np.testing.assert_allclose(row, expected, rtol=2e-6)


def test_contexts_of_a_large_model_agree_with_the_reference() -> None:
    """The probabilities of all contexts together would take twice the memory that is used for
    them.
    """
    size, order = 3000, 4
    tokens = np.random.default_rng(2).integers(size - 1, size=5000).tolist()
    training = tokens[:4500]
    model, probability = count(tokens, size, order), reference(training, order, size)
    decoder = model.decoder(4)
    places = [3, 1000, 3000, 4400]
    contexts = [training[place - 3 : place] for place in places]
    rows = np.exp(decoder.extend(np.array(contexts, np.int64)))
    for place, context, row in zip(places, contexts, rows, strict=True):
        some = [training[place], training[place - 1], 0, size - 1]
        expected = [probability(tuple(context), token) for token in some]
        np.testing.assert_allclose(row[some], expected, rtol=2e-6)
        assert row.sum() == pytest.approx(1, rel=1e-5)


texts = st.integers(1, 9).flatmap(
    lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), min_size=2))
)


@settings(max_examples=60, deadline=None)
@given(text=texts, order=st.integers(1, 7), seed=st.integers(0, 99))
@example(text=(1, [0, 0]), order=7, seed=0)
def test_sums_to_one_after_every_context(
    text: tuple[int, list[int]], order: int, seed: int
) -> None:
    size, tokens = text
    decoder = count(tokens, size, order).decoder(6)
    fed = np.random.default_rng(seed).integers(0, size, (6, 12))
    rows = np.concatenate([decoder.extend(fed[:, :0])[:, None], decoder.score(fed)], axis=1)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.exp(rows).sum(axis=-1), 1, rtol=2e-6)


TOKENS = np.random.default_rng(7).integers(0, 11, 3000) // np.array([1, 2, 3] * 1000)


def test_before_training_every_token_is_equally_likely() -> None:
    model = NgramModel(3, 4)
    np.testing.assert_allclose(
        np.exp(model.decoder(2).extend(np.array([[1, 2], [0, 0]]))), 0.25, rtol=1e-15
    )
    np.testing.assert_allclose(np.exp(model.decoder(1).score(np.array([[1, 2]]))), 0.25, rtol=1e-15)


@pytest.mark.parametrize("damage", ["order", "count", "parent", "suffix"])
def test_refuses_counts_that_contradict_each_other(damage: str) -> None:
    tensors = {name: array.copy() for name, array in count(TOKENS, 11, 3).tensors().items()}
    if damage == "order":
        tensors["keys"][[0, 1]] = tensors["keys"][[1, 0]]
    elif damage == "count":
        tensors["counts"][5] = 0
    elif damage == "parent":
        tensors["keys"][-1] = 11**6
    else:  # "0 0" is there, and no 0
        tensors = {
            "keys": np.array([1, 11]),
            "counts": np.array([1, 1]),
            "sizes": np.array([1, 1, 0]),
        }
    model = NgramModel(3, 11)
    with pytest.raises(ValueError, match=r"rise|below 1|go on from|ends in"):
        model.load_tensors(tensors)


@pytest.fixture(scope="module")
def ngram_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("ngram")
    return Engine().run(
        pipeline(folder, {"type": "ngram", "order": 3}, {"type": "count"}), output=folder / "run"
    )


def test_losses_are_those_of_models_of_each_order(ngram_run: Run) -> None:
    data = dataset(TOKENS, 11)
    *steps, last = CountTrainer().train(NgramModel(4, 11), data, CONTEXT)
    for event in steps:
        model = count(TOKENS, 11, event.step)
        rows = model.decoder(1).score(data.training[None, :-1])[0]
        loss = -rows[np.arange(len(rows)), data.training[1:]].mean(dtype=np.float64)
        assert event.loss == pytest.approx(loss, rel=1e-5)
    assert last.training_loss == steps[-1].loss
    record = json.loads((ngram_run.path / "run.json").read_text())
    assert record["best_loss"] == pytest.approx(ngram_run.generator.score(HELD_OUT).loss, rel=1e-5)


def test_a_sample_is_counted_from_the_beginning_to_the_end_of_the_text(tmp_path: Path) -> None:
    trainer = {"type": "count", "max_tokens": 3_200}
    run = Engine().run(
        pipeline(tmp_path, {"type": "ngram", "order": 2}, trainer),
        output=tmp_path / "run",
    )
    tokenizer, training = run.generator.tokenizer, TEXT[: len(TEXT) - len(TEXT) // 10]
    ids = np.asarray(tokenizer.encode(training))
    length, last = 3_200 // 64, len(ids) - 3_200 // 64
    sample = np.concatenate([ids[i * last // 63 : i * last // 63 + length] for i in range(64)])
    padded = np.concatenate([sample, np.zeros(len(sample) // 9, int)])  # a tenth is held out
    expected = count(padded, tokenizer.vocab_size, 2).tensors()["counts"]
    counts = run.generator.model.tensors()["counts"]
    assert sorted(counts.tolist()) == sorted(expected.tolist())


def test_of_a_text_beyond_memory_a_part_is_counted_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "_MOST_TOKENS", 640)
    tokens = np.random.default_rng(0).integers(0, 5, 6_400)
    with pytest.warns(UserWarning, match="640 of the 5,760 tokens .* max_tokens of the trainer"):
        model = count(tokens, 5, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = count(tokens, 5, 2, trainer=CountTrainer(640))
        count(tokens, 5, 2, trainer=CountTrainer(10_000))
    assert told.tensors()["counts"].tolist() == model.tensors()["counts"].tolist()
