"""Recent tokens as an expert: what it counts, in any way that tokens come, and that it pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from counted import CONTEXT, HELD_OUT, TEXT, assert_rows_agree, dataset, pipeline
from hypothesis import given
from hypothesis import strategies as st

from textgen import Engine
from textgen.protocols import Model
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel
from textgen_builtins.models.ngram.recent import RecentTokens

SIZE, ORDER, LENGTHS = 3, 4, (1, 3, 5, 8)  # of matches of a model of this order
TEXTS = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=60)


def by_hand(text: list[int], reach: int, lower: Any) -> Any:
    """(V,) the probabilities after a text, by its last `reach` tokens alone."""
    seen, made = text[-reach:], lower.astype(np.float64)
    for length in LENGTHS:
        end = seen[len(seen) - length :] if length <= len(seen) else None
        places = range(length, len(seen))
        followed = [
            seen[place]
            for place in places
            if end is not None and seen[place - length : place] == end
        ]
        if followed:
            counts = np.bincount(followed, minlength=SIZE)
            freed = 0.7 * (counts > 0).sum() / counts.sum()
            made = made * freed + np.maximum(counts - 0.7, 0) / counts.sum()
    return made


@given(text=TEXTS, reach=st.integers(1, 40), cut=st.integers(0, 60))
def test_the_counts_are_those_of_matches_within_reach(
    text: list[int], reach: int, cut: int
) -> None:
    lower = (
        np.random.default_rng(len(text)).dirichlet(np.ones(SIZE), (2, len(text))).astype(np.float32)
    )
    rows = np.array([text, text[::-1]])
    read, whole = RecentTokens.none(2, reach, ORDER), lower.copy()
    for part in (slice(0, cut), slice(cut, None)):
        read.read(rows[:, part], whole[:, part])
    stepped, one, leaping = (RecentTokens.none(size, reach, ORDER) for size in (2, 1, 1))
    for t, token in enumerate(text):
        expected = by_hand(text[: t + 1], reach, lower[0, t])
        np.testing.assert_allclose(whole[0, t], expected, rtol=1e-5)
        stepped.append(rows[:, t : t + 1])
        both = lower[:, t].copy()
        stepped.interpolate(both)
        one.append(np.array([[token]]))
        alone = lower[:1, t].copy()
        one.interpolate(alone)
        np.testing.assert_array_equal(both, whole[:, t])
        np.testing.assert_array_equal(alone[0], whole[0, t])
        if t % 3 != 1:  # one and two tokens at a time, in turn
            leaping.append(rows[:1, t - 1 if t % 3 == 2 else t : t + 1])
            alone = lower[:1, t].copy()
            leaping.interpolate(alone)
            np.testing.assert_array_equal(alone[0], whole[0, t])
    np.testing.assert_array_equal(stepped.tokens, read.tokens)


def test_a_text_of_one_character_is_read_by_a_bounded_number_of_matches() -> None:
    text, lower = np.zeros((1, 3000), np.int64), np.full((1, 3000, 2), 0.5, np.float32)
    whole, stepped = lower.copy(), RecentTokens.none(1, 2000, ORDER)
    RecentTokens.none(1, 2000, ORDER).read(text, whole)
    stepped.append(text)
    last = lower[:, -1].copy()
    stepped.interpolate(last)
    np.testing.assert_array_equal(last, whole[:, -1])
    np.testing.assert_allclose(last[0, 1], 0.5 * (0.7 / 16) ** len(LENGTHS), rtol=1e-3)


def model(recent: int) -> Model:
    """A model of the story, by characters, without counts of words."""
    characters = sorted(set(TEXT))
    made = NgramModel(4, len(characters), recent=recent)
    tokens = [characters.index(character) for character in TEXT]
    for _ in CountTrainer().train(made, dataset(tokens, len(characters)), CONTEXT):
        pass
    return made


def test_a_row_is_the_same_alone_in_steps_and_in_any_batch() -> None:
    assert_rows_agree(model(30))


@pytest.mark.parametrize("recent", [np.zeros((2, 30), np.int32), np.full((1, 30), 99, np.int32)])
def test_a_state_that_is_not_one_of_recent_tokens_is_refused(recent: Any) -> None:
    decoder = model(30).decoder(1)
    with pytest.raises(ValueError, match="recent must be"):
        decoder.write_state({"context": np.zeros(1, np.int64), "recent": recent})


def test_a_name_that_was_never_trained_on_is_expected_once_it_came(tmp_path: Any) -> None:
    losses, text = [], HELD_OUT + " Dorlumine." * 4
    assert set(text) <= set(TEXT)
    assert "lumine" not in TEXT
    for recent in (0, 300):
        choice = {"type": "ngram", "recent": recent}
        run = Engine().run(
            pipeline(tmp_path, choice, {"type": "count"}), output=tmp_path / f"run{recent}"
        )
        losses.append(run.generator.score(text).loss)
    assert losses[1] < losses[0] - 0.02
