"""The experts beside the n-grams, counts over words and of the text so far: what they count, and
that they pay.
"""

import re

import numpy as np
import pytest
from components import Utf8
from counted import HELD_OUT, TEXT, count, pipeline
from hypothesis import given
from hypothesis import strategies as st

import textgen
from textgen import Engine
from textgen_builtins.models.loss import mean_loss
from textgen_builtins.models.ngram.model import NgramModel
from textgen_builtins.models.ngram.words import WordReader

PIECES = ("a", "b", "Ab", "é", " ", "a ", " b", ".", ", a", " ab ba", "ba ab, ", "7", "", "-b-")


class Pieces:
    """A tokenizer whose tokens are given texts, joined by `between`, as words are by a space."""

    def __init__(self, pieces=PIECES, between=""):
        self.pieces, self.between = pieces, between
        self.vocab_size = len(pieces)

    def decode(self, ids):
        return self.between.join(self.pieces[i] for i in ids)


def words_of(text):
    """The word so far, the one before it and the one before that, as regular expressions see
    them.
    """
    words = [word.casefold() for word in re.findall(r"[^\W\d_]+", text)]
    so_far = words.pop() if re.search(r"[^\W\d_]$", text) else ""
    return [so_far, *reversed([*["", ""], *words][-2:])]


CHARACTERS = tuple(sorted(set(TEXT)))
TOKENS = st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=40)


@given(tokens=TOKENS, between=st.sampled_from(["", " "]))
def test_words_are_the_same_where_their_hashes_are(tokens, between):
    tokenizer = Pieces(between=between)
    reader = WordReader.of(tokenizer)
    hashes = reader.read(np.zeros((1, 3), np.uint64), np.array([tokens]))[0].tolist()
    texts = {"": 0}
    for end, found in enumerate(hashes, 1):
        # A token before them, since a text's first token has no separator.
        for word, value in zip(
            words_of("." + between + tokenizer.decode(tokens[:end])), found, strict=True
        ):
            assert texts.setdefault(word, value) == value, word
    assert len(set(texts.values())) == len(texts)


def test_tokens_without_letters_are_not_counted_as_words():
    assert WordReader.of(Pieces(("1", "2", ", "))) is None
    assert NgramModel(3, 3).expert_weights == (1.0,)


def model(*, has_words=True, cache_tokens=0):
    """A model of the story, by characters."""
    reader = WordReader.of(Pieces(CHARACTERS)) if has_words else None
    return count(ids_of(TEXT), len(CHARACTERS), 4, reader=reader, cache_tokens=cache_tokens)


def ids_of(text):
    return [CHARACTERS.index(character) for character in text]


def test_each_expert_is_a_distribution_after_every_context():
    tokens = np.array([ids_of(TEXT[:60]), ids_of(TEXT[300:360])])
    alone, rows = (
        model(has_words=has_words).decoder(2).score_experts(tokens) for has_words in (False, True)
    )
    np.testing.assert_allclose(np.exp(rows).sum(axis=-1), 1, rtol=2e-6)
    np.testing.assert_array_equal(rows[:, :, :1], alone)  # the n-grams come first
    assert all((rows[:, :, expert] != rows[:, :, 0]).any() for expert in (1, 2))


def test_words_lower_the_loss_of_held_out_text():
    ids = np.array(ids_of(HELD_OUT))
    without, by_words = (
        mean_loss(model(has_words=has_words), ids, len(CHARACTERS)) for has_words in (False, True)
    )
    assert by_words < without - 0.03


@pytest.mark.parametrize("order", [3, 6])
def test_documents_begin_as_those_of_the_corpus(order):
    names = [
        f"{first}{rest}" for rest in ("ana.", "oren.", "il.", "utha.") for first in "MMMMMMKKT" * 5
    ]
    names = np.random.default_rng(0).permutation(names).tolist()
    model = {"type": "ngram", "order": order}
    made = textgen.train(corpus=names, model=model, trainer={"type": "count"}).generator
    tokenizer = made.tokenizer
    shares = np.exp(made.model.decoder(1).extend_experts(np.array([[tokenizer.end_id]]))[0, 0])
    for letter, share in (("M", 6 / 9), ("K", 2 / 9), ("T", 1 / 9)):
        assert abs(float(shares[tokenizer.encode(letter)[0]]) - share) < 0.05


def test_a_text_that_only_repeats_is_learnt():
    made = textgen.train(
        corpus="ab cd ef " * 2500, tokenizer=Utf8(), model="ngram", trainer="count"
    )
    assert made.best_loss < 0.01


LENGTHS = (1, 2, 3), (4, 5, 6)  # of the contexts of each expert of a model of order 4
FOLLOWERS, MOST, DISCOUNTS = (32, 4), (3, 1), (0.7, 0.8)


def by_hand(text, expert, lower):
    """(V,) the probabilities after a text, by what followed its last tokens in it."""
    made = lower.astype(np.float64)
    for length in LENGTHS[expert]:
        padded = [None] * length + text
        followed = [
            token
            for place, token in enumerate(text)
            if padded[place : place + length] == padded[-length:]
        ]
        counts = np.bincount(followed[-FOLLOWERS[expert] :], minlength=len(lower))
        counts = np.minimum(counts, MOST[expert])
        if counts.any():
            freed = DISCOUNTS[expert] * (counts > 0).sum() / counts.sum()
            made = made * freed + np.maximum(counts - DISCOUNTS[expert], 0) / counts.sum()
    return made


def test_contexts_are_counted_in_the_text_so_far():
    made = model(has_words=False, cache_tokens=100_000)
    text = ids_of(HELD_OUT[:400])
    found = np.exp(made.decoder(1).score_experts(np.array([text]))[0])
    for t in range(len(text)):
        uniform = np.full(made.trie.vocab_size, 1 / made.trie.vocab_size)
        for expert, lower in enumerate((uniform, found[t, 0])):
            expected = by_hand(text[: t + 1], expert, lower)
            np.testing.assert_allclose(found[t, 1 + expert], expected, rtol=1e-4)


@pytest.mark.parametrize("cache_tokens", [0, 40, 5_000])
def test_a_long_text_may_be_read_in_parts_of_any_size(cache_tokens):
    made = model(has_words=False, cache_tokens=cache_tokens)
    text = np.random.default_rng(0).zipf(1.7, (1, 9_000)) % made.trie.vocab_size
    whole, parts, unscored, moved = (made.decoder(1) for _ in range(4))
    scored = whole.score(text)
    for part in np.split(text, [1, 5, 3_000, 3_001], axis=1):
        np.testing.assert_array_equal(parts.score(part)[:, -1], unscored.extend(part))
    np.testing.assert_array_equal(unscored.extend(text[:, :0]), scored[:, -1])
    moved.write_state(whole.read_state())
    for decoder in (parts, unscored, moved):
        for name, array in whole.read_state().items():
            np.testing.assert_array_equal(decoder.read_state()[name], array)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("context", lambda array: array - 9),
        ("words", lambda array: array[:, :3]),
        ("past", lambda array: array + 99),
        ("short", lambda array: array[:, :, :, 1:]),
        ("long", lambda array: array.astype(np.float32)),
    ],
)
def test_a_state_of_another_model_is_refused(name, change):
    decoder = model(cache_tokens=30).decoder(1)
    state = decoder.read_state()
    with pytest.raises(ValueError, match=name):
        decoder.write_state(state | {name: change(state[name])})


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("counts", lambda array: array[1:], "n-grams"),
        ("sizes", lambda array: np.array([0, array.sum()]), "n-grams"),
        ("sizes", lambda array: np.append(array, 0), "5, and not 4"),
        ("keys", lambda array: array[[1, 0, *range(2, len(array))]], "n-grams"),
        ("keys", lambda array: np.append(array[:-1], 10**9), "n-grams"),
        ("counts", lambda array: 0 * array, "n-grams"),
        ("words.0.contexts", lambda array: array[::-1], "words"),
        ("words.0.counts", lambda array: 0 * array, "words"),
        ("gate.bias", lambda array: array[1:], "weights"),
    ],
)
def test_weights_of_another_model_and_counts_that_contradict_each_other_are_refused(
    name, change, cause
):
    made = model()
    tensors = made.tensors()
    with pytest.raises(ValueError, match=cause):
        made.load_tensors(tensors | {name: change(tensors[name])})


def test_a_name_that_was_never_trained_on_is_expected_once_it_came(tmp_path):
    assert "lumine" not in TEXT
    losses = []
    for cache_tokens in (0, 16_384):
        tables = pipeline(
            tmp_path, {"type": "ngram", "cache_tokens": cache_tokens}, {"type": "count"}
        )
        made = Engine().run(tables, output=tmp_path / f"run{cache_tokens}").generator
        losses.append(made.score(" Dorlumine.", prompt="Dorlumine. " + TEXT[:5_000]).loss)
    assert losses[1] < losses[0] - 0.3
