"""The character tokenizer: exact round trips, and a corpus in pieces encodes like the joined
text.
"""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import textgen
from textgen import BuildContext
from textgen_builtins.tokenizers.config import CharConfig
from textgen_builtins.tokenizers.plugin import build_char

# What tends to go wrong: controls, line ends, emoji, combining marks of several classes, a vowel
# sign that merges into a merged one, Hangul letters, letters whose small form is two characters or
# depends on its neighbours, ligatures, half-width marks, lone surrogates, the last code point.
HARD = (
    "\0\r\n a'Z@[`{é\u0301\u0323\u0345\u0c46\u0cc6\u0cc2\u0cd5각가ㅏİΣςʰǅﬁｶﾞ😀👩"
    "\u200d\ud800\udc00\ufeff\ufffd\U0010ffff"
)
characters = st.sampled_from(HARD) | st.characters()
texts = st.text(characters, max_size=40)
configs = st.builds(
    CharConfig,
    letters_only=st.booleans(),
    lower_case=st.booleans(),
    min_frequency=st.integers(1, 3),
)


def fitted(config, pieces):
    made = build_char(config, BuildContext(folder=Path()))
    made.fit(pieces)
    return made


def normalized(config, text):
    """The options' meaning, said again in the plainest way."""
    if config.letters_only:
        text = re.sub("[^A-Za-z\ufffd]+", " ", text)
    return "".join(map(str.lower, text)) if config.lower_case else text  # each alone


@st.composite
def pieces(draw):
    """A text cut anywhere, empty pieces among them."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(pieces(), configs)
@example(["Λ", "Σ", " "], CharConfig(lower_case=True))
def test_any_pieces_encode_like_the_joined_text(parts, config):
    text = "".join(parts)
    whole = fitted(config, [text])
    encoded = [token for ids in whole.encode_pieces(parts) for token in ids]
    assert encoded == whole.encode(text).tolist()
    assert fitted(config, parts).to_dict() == whole.to_dict()


@given(texts, configs)
@example("a\ufffd b", CharConfig(letters_only=True))
def test_text_is_normalised_as_the_options_say(text, config):
    expected = normalized(config, text)
    char = fitted(config, [text])
    frequent = {c for c in expected if expected.count(c) >= config.min_frequency}
    if config.letters_only:
        frequent -= {"\ufffd"}
    assert char.to_dict()["tokens"] == ["<unk>", *sorted(frequent)]
    assert char.decode(char.encode(text)) == "".join(
        c if c in frequent else "\ufffd" for c in expected
    )


@pytest.mark.parametrize(
    "config", [CharConfig(letters_only=True, lower_case=True), CharConfig(lower_case=True)]
)
def test_long_texts_are_normalised_like_short_ones(config):
    text = "X, Σ-" * 700_001  # several blocks, cut at every place of the pattern
    char = fitted(config, [text])
    assert char.decode(char.encode(text)) == normalized(config, text)


@pytest.mark.parametrize("lower_case", [False, True])
def test_a_letter_that_is_too_rare_is_one_unknown_token(lower_case):
    options = {"letters_only": True, "min_frequency": 2, "lower_case": lower_case}
    trained = textgen.train(
        corpus="Once, z, it rained.\n" + "Once, it rained.\n" * 50,
        tokenizer={"type": "char", **options},
        model={"type": "ngram"},
        trainer={"type": "count"},
        device="cpu",
    )
    tokenizer = trained.generator.tokenizer
    ids = tokenizer.encode("it z it")
    assert ids.tolist().count(tokenizer.unknown_id) == 1
    assert tokenizer.encode(tokenizer.decode(ids)).tolist() == ids.tolist()


@pytest.mark.parametrize("ids", [[2], [-1]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(ValueError, match="from 0 to 1"):
        fitted(CharConfig(), "a").decode(np.array(ids))


@pytest.mark.slow
def test_a_large_corpus_is_encoded_in_bounded_memory():
    line = "The Time Traveller (for so it will be convenient to speak of him) … é 😀\n"
    piece = line * 14_000  # a million characters

    tracemalloc.start()
    try:
        char = fitted(CharConfig(lower_case=True), [piece] * 100)
        assert sum(map(len, char.encode_pieces([piece] * 100))) == 100 * len(piece)
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
