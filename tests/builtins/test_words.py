"""Counting over words: how tokens of any kind are read as words, and that the counts pay."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from counted import CONTEXT, HELD_OUT, TEXT, assert_rows_agree, dataset
from hypothesis import given
from hypothesis import strategies as st

import textgen
from textgen_builtins.models.loss import mean_loss
from textgen_builtins.models.ngram.counting import CountTrainer
from textgen_builtins.models.ngram.model import NgramModel
from textgen_builtins.models.ngram.words import WordReader

PIECES = ("a", "b", "Ab", "é", " ", "a ", " b", ".", ", a", " ab ba", "ba ab, ", "7", "", "-b-")


class Pieces:
    """A tokenizer whose tokens are given texts, joined by `between`, as words are by a space."""

    def __init__(self, pieces: tuple[str, ...] = PIECES, between: str = "") -> None:
        self.pieces, self.between = pieces, between
        self.vocab_size = len(pieces)

    def decode(self, ids: Any) -> str:
        return self.between.join(self.pieces[i] for i in ids)


def words_of(text: str) -> list[str]:
    """The word so far, the one before it and the one before that, as regular expressions see them."""
    words = [word.casefold() for word in re.findall(r"[^\W\d_]+", text)]
    so_far = words.pop() if re.search(r"[^\W\d_]$", text) else ""
    return [so_far, *reversed([*["", ""], *words][-2:])]


TOKENS = st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=40)


@given(tokens=TOKENS, between=st.sampled_from(["", " "]))
def test_words_are_the_same_where_their_hashes_are(tokens: list[int], between: str) -> None:
    tokenizer = Pieces(between=between)
    reader = WordReader.of(tokenizer)  # type: ignore[arg-type]
    assert reader is not None
    hashes = reader.read(np.zeros((1, 3), np.uint64), np.array([tokens]))[0].tolist()
    texts = {"": 0}
    for end, found in enumerate(hashes, 1):
        # A token before them, since a text's first token has no separator.
        for word, value in zip(
            words_of("." + between + tokenizer.decode(tokens[:end])), found, strict=True
        ):
            assert texts.setdefault(word, value) == value, word
    assert len(set(texts.values())) == len(texts)


@given(tokens=TOKENS, cut=st.integers(0, 40))
def test_read_in_one_go_in_two_and_token_by_token(tokens: list[int], cut: int) -> None:
    reader = WordReader.of(Pieces())  # type: ignore[arg-type]
    assert reader is not None
    rows = np.array([tokens, tokens[::-1]])
    whole = reader.read(np.zeros((2, 3), np.uint64), rows)
    cut = min(cut, len(tokens) - 1)
    if cut:
        before = reader.read(np.zeros((2, 3), np.uint64), rows[:, :cut])[:, -1]
        np.testing.assert_array_equal(reader.read(before, rows[:, cut:]), whole[:, cut:])
    words = np.zeros((2, 3), np.uint64)
    for t in range(len(tokens)):
        words = reader.read(words, rows[:, t : t + 1])[:, -1]
        np.testing.assert_array_equal(words, whole[:, t])


def test_tokens_without_letters_are_not_counted_as_words() -> None:
    assert WordReader.of(Pieces(("1", "2", ", "))) is None  # type: ignore[arg-type]
    assert NgramModel(3, 3).expert_weights == (1.0,)


def model(*, has_words: bool = True) -> NgramModel:
    """A model of the story, by characters."""
    characters = tuple(sorted(set(TEXT)))
    reader = WordReader.of(Pieces(characters)) if has_words else None  # type: ignore[arg-type]
    made = NgramModel(4, len(characters), reader)
    tokens = [characters.index(character) for character in TEXT]
    for _ in CountTrainer().train(made, dataset(tokens, len(characters)), CONTEXT):
        pass
    return made


@pytest.mark.parametrize("has_words", [False, True])
def test_each_expert_is_a_distribution_after_every_context(has_words: bool) -> None:
    made = model(has_words=has_words)
    rows = made.decoder(2).score_experts(np.random.default_rng(0).integers(0, 40, (2, 60)))
    assert rows.shape[2] == (3 if has_words else 1)
    np.testing.assert_allclose(np.exp(rows).sum(axis=-1), 1, rtol=2e-6)


def test_a_row_is_the_same_alone_in_steps_and_in_any_batch() -> None:
    assert_rows_agree(model())


def test_words_lower_the_loss_of_held_out_text() -> None:
    ids = np.array([sorted(set(TEXT)).index(character) for character in HELD_OUT])
    without, by_words = (
        mean_loss(model(has_words=has_words), ids, len(set(TEXT))) for has_words in (False, True)
    )
    assert by_words < without - 0.03


@pytest.mark.parametrize("order", [3, 6])
def test_documents_begin_as_those_of_the_corpus(order: int) -> None:
    names = [
        f"{first}{rest}" for rest in ("ana.", "oren.", "il.", "utha.") for first in "MMMMMMKKT" * 5
    ]
    names = np.random.default_rng(0).permutation(names).tolist()
    run = textgen.train(
        corpus=names,
        model={"type": "ngram", "order": order},
        trainer={"type": "count"},
    )
    model, tokenizer = run.generator.model, run.generator.tokenizer
    shares = np.exp(model.decoder(1).extend_experts(np.array([[tokenizer.end_id]]))[0, 0])
    for letter, share in (("M", 6 / 9), ("K", 2 / 9), ("T", 1 / 9)):
        assert abs(float(shares[tokenizer.encode(letter)[0]]) - share) < 0.05
