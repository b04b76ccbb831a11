"""The sampler `dry` against a definition of its own."""

import re
import time

import attrs
import numpy as np
import pytest
from components import context, make
from hypothesis import given
from hypothesis import strategies as st
from test_samplers import Past, sampler


def test_dry_searches_the_last_10_000_tokens():
    for between, penalised in ((9_990, True), (10_010, False)):
        past = Past(texts=[[1, 2, 3, *[4, 4, 4] * (between // 3), 1, 2]])
        out = sampler("dry", 5, multiplier=1.0)(np.zeros((1, 5)), past)
        assert (out[0, 3] < 0) == penalised


@given(text=st.text(alphabet="ab' \n.字", max_size=60), allowed=st.integers(0, 3))
def test_dry_counts_words_and_breaks_none(text, allowed):
    """By the list of the words before: a token is penalised as the first of a word, whatever stands
    between words. A wide letter is a word.
    """
    characters = "\n '.ab字"  # ids 1 to 7
    options = {"multiplier": 1.0, "allowed_length": allowed}
    made = make("sampler", "dry", context(vocabulary=characters), **options)
    tokens = [characters.index(each) + 1 for each in text]
    out = made(np.zeros((1, 8)), Past(texts=[tokens]))
    words = re.findall("[ab']+|字", text)
    longest, times = np.zeros(8), np.zeros(8)
    for place in range(1, len(words)):
        length = 0
        while length < place and words[place - 1 - length] == words[-1 - length]:
            length += 1
        first = words[place][0]
        if length >= allowed and (text[-1] in "\n .字" or first == "字"):
            token = characters.index(first) + 1
            longest[token] = max(longest[token], length)
            times[token] += 1
    expected = 1.75 ** (longest - allowed) * np.log2(1 + times)
    if run := re.search(r"([ \n.])\1{3,}\Z", text):
        expected[characters.index(run[1]) + 1] = 1.75 ** (len(run[0]) - 4)
    assert -out[0] == pytest.approx(expected, rel=1e-5)


class Pieces:
    """A tokenizer whose tokens are parts of words, or have more than one."""

    TEXTS = ("<unk>", "the", " the", " door", " do", "or", ",", " of the")
    vocab_size, unknown_id = len(TEXTS), 0

    def decode(self, ids):
        return "".join(self.TEXTS[each] for each in ids).removeprefix(" ")


def test_dry_penalises_the_first_token_of_a_word():
    made = make("sampler", "dry", attrs.evolve(context(), tokenizer=Pieces()), multiplier=1.0)
    the, in_text, door, do, other, comma, of_the = range(1, 8)
    for text, penalised in (
        ([the, door, in_text], []),  # a repetition of less than two words
        ([in_text, door, of_the, comma, in_text, door], [of_the]),
        ([in_text, do, other, comma, in_text, do], []),  # "or" is inside a word
    ):
        out = made(np.zeros((1, 8)), Past(texts=[text]))
        assert np.flatnonzero(out[0]).tolist() == penalised


def test_a_long_repetition_stays_within_float32_and_takes_no_time():
    made = sampler("dry", 3, multiplier=1e9)
    out = made(np.zeros((1, 3), np.float32), Past(texts=[[1] * 20_000]))
    assert out[0].tolist() == [0, -np.float32(1e30), 0]
    begun = time.thread_time()
    made(np.zeros((1, 3), np.float32), Past(texts=[[1] * 20_000]))
    assert time.thread_time() - begun < 0.02
