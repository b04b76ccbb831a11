"""The probabilities: against a slow implementation that follows the paper word by word, and as probabilities."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from counted import TEXT, count
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textgen_builtins.models.ngram.smoothing import FALLBACK, discounts

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
    model, probability = count(tokens, size, order, end), reference(training, order, size, end)
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


def test_discounts_are_estimated_where_counts_allow_and_fall_back_where_not() -> None:
    estimated = discounts(np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 12, 30]))
    y = 100 / 180
    np.testing.assert_allclose(
        estimated, [1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.6], rtol=1e-12
    )
    assert tuple(discounts(np.array([1, 1, 2, 3]))) == FALLBACK  # nothing was seen four times
    assert (
        tuple(discounts(np.repeat([1, 2, 3, 4], [100, 1, 20, 12]))) == FALLBACK
    )  # D2 would be negative


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


def test_a_vocabulary_too_large_for_a_table_of_rows_follows_the_same_formulas() -> None:
    size, order, rng = 300_000, 4, np.random.default_rng(0)
    tokens = rng.choice(rng.integers(0, size, 40), 300)
    training = tokens[:270].tolist()
    decoder, probability = count(tokens, size, order).decoder(1), reference(training, order, size)
    rows = np.exp(decoder.score(tokens[None, :12])[0])
    np.testing.assert_allclose(rows.sum(axis=-1), 1, rtol=2e-6)
    for t in range(order, 12):
        context = tuple(training[t - order + 2 : t + 1])
        for token in {*training[:5], training[t + 1], 12}:
            assert rows[t, token] == pytest.approx(probability(context, token), rel=2e-6)
