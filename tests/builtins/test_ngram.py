"""The n-gram model: its probabilities against a slow implementation of the paper, and what its
trainer counts.
"""

from collections import Counter, defaultdict

import attrs
import numpy as np
import pytest
from components import context, make
from counted import CONTEXT, HELD_OUT, TEXT, count, dataset, pipeline

from textgen import Engine
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel

BEGINNING = -1


def reference(tokens, order, vocab_size, end=None):
    """P(token | context) by interpolated modified Kneser-Ney, with dictionaries and loops.

    N-grams that begin with `end`, as those with <s> of KenLM, are counted as often as they occur.
    """
    counts = {}
    for n in range(1, order + 1):
        before = defaultdict(list)
        for i in range(len(tokens) - n + 1):
            before[tuple(tokens[i : i + n])].append(tokens[i - 1] if i else BEGINNING)
        occurs = {gram: n == order or (n > 1 and gram[0] == end) for gram in before}
        counts[n] = Counter(
            {gram: len(b) if occurs[gram] else len(set(b)) for gram, b in before.items()}
        )
    taken = {n: reference_discounts(counts[n]) for n in counts}

    def probability(context, token):
        n = len(context) + 1
        lower = 1 / vocab_size if n == 1 else probability(context[1:], token)
        following = [c for gram, c in counts[n].items() if gram[:-1] == context]
        if not following:
            return lower
        own = counts[n][*context, token]
        freed = sum(taken[n][min(c, 3)] for c in following)
        return (own - taken[n][min(own, 3)] + freed * lower) / sum(following)

    return probability


def reference_discounts(counts):
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
@pytest.mark.parametrize(("ends", "table"), [(False, 1 << 26), (True, 1 << 26), (True, 0)])
def test_agrees_with_the_reference(order, length, ends, table, monkeypatch):
    monkeypatch.setattr("textgen_builtins.models.ngram.trie._TABLE_BYTES", table)
    characters = sorted(set(TEXT[:600]))
    tokens = [characters.index(c) for c in TEXT[: length + length // 9]]
    size, space = len(characters) + 1, characters.index(" ")
    training = dataset(tokens, size).training.tolist()
    end = space if ends else None  # words as documents
    model, probability = count(tokens, size, order, end=end), reference(training, order, size, end)
    for before in (
        [],
        [space],
        [size - 1],
        training[-5:],
        training[:3],
        training[2:6],
        [0, 1, 2, 3],
        [size - 1, *training[:2]],
    ):
        row = np.exp(model.decoder(1).extend(np.array([before], np.int64))[0])
        known = tuple(before[max(0, len(before) - order + 1) :])
        expected = [probability(known, token) for token in range(size)]
        np.testing.assert_allclose(row, expected, rtol=2e-6)


TOKENS = np.random.default_rng(7).integers(0, 11, 3000) // np.array([1, 2, 3] * 1000)


def test_an_ngram_without_the_one_that_it_ends_in_is_refused():
    tensors = {"keys": [1, 11], "counts": [1, 1], "sizes": [1, 1, 0]}  # "0 0", and no 0
    with pytest.raises(ValueError, match="shorter"):
        NgramModel(3, 11).load_tensors({name: np.array(ids) for name, ids in tensors.items()})


def test_losses_are_those_of_models_of_each_order(tmp_path):
    data = dataset(TOKENS, 11)
    *steps, last = CountTrainer().train(NgramModel(4, 11), data, CONTEXT)
    for event in steps:
        model = count(TOKENS, 11, event.step)
        rows = model.decoder(1).score(data.training[None, :-1])[0]
        loss = -rows[np.arange(len(rows)), data.training[1:]].mean(dtype=np.float64)
        assert event.loss == pytest.approx(loss, rel=1e-5)
    assert last.training_loss == steps[-1].loss
    tables = pipeline(tmp_path, {"type": "ngram", "order": 3}, {"type": "count"})
    run = Engine().run(tables, output=tmp_path / "run")
    cold = attrs.evolve(run.generator, record={})
    assert run.best_loss == pytest.approx(cold.score(HELD_OUT).loss, rel=1e-5)


def test_of_a_long_text_a_sample_from_beginning_to_end_is_counted_and_said():
    tokens = np.random.default_rng(0).integers(0, 5, 6_400)
    starts = np.arange(64) * (5_760 - 10) // 63  # a tenth is held out
    sample = np.concatenate([tokens[start : start + 10] for start in starts])
    expected = count([*sample, *[0] * 71], 5, 2).tensors()["counts"].tolist()
    trainer = make("trainer", "count", context(), max_tokens=640)
    with pytest.warns(UserWarning, match="640 of the 5,760 tokens"):
        model = count(tokens, 5, 2, trainer=trainer)
    assert model.tensors()["counts"].tolist() == expected
    count(tokens, 5, 2)  # without a warning
