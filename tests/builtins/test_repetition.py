"""The samplers `no-repeat-ngram` and `dry` against definitions of their own."""

from __future__ import annotations

import math
import re
import time
from collections import Counter

import attrs
import numpy as np
import pytest
from components import context, letters, make
from hypothesis import example, given
from hypothesis import strategies as st
from test_samplers import Past, cases, masked, rows, sampler


@given(case=cases(), n=st.integers(1, 5))
def test_no_repeat_ngram_forbids_what_would_repeat(case, n):
    for b, (row, out) in enumerate(rows(case, "no-repeat-ngram", n=n)):
        text = case[1].tokens(b).tolist()
        grams = [text[i : i + n] for i in range(len(text) - n + 1)]
        every = range(len(row))
        allowed = {t for t in every if [*text[len(text) - n + 1 :], t] not in grams}
        left = any(row[t] > -np.inf for t in allowed)
        assert out.tolist() == masked(row, allowed if left else set(every))


def plain_dry(tokens, options, breakers):
    """What llama.cpp's dry subtracts from the logit of each of 5 tokens, by comparing the end with
    every place before.

    So does ours where each token is a word, as Chinese characters are, for the first repetition;
    others count more.
    """
    last_n = options.get("penalty_last_n", -1)
    window = tokens if last_n < 0 else tokens[max(0, len(tokens) - last_n) :]
    allowed, limit = options.get("allowed_length", 2), len(window)
    for ids in breakers:
        for end in range(len(ids), len(window) + 1):
            if window[end - len(ids) : end] == ids:
                limit = min(limit, len(window) - end)
    longest = {}
    times = Counter()
    for place in range(len(window) - 1):
        length = 0
        while length <= place and window[place - length] == window[-1 - length]:
            length += 1
        length = min(length, limit)
        if length >= allowed and limit >= allowed and len(window) > allowed:
            longest[window[place + 1]] = max(length, longest.get(window[place + 1], 0))
            times[window[place + 1]] += 1
    singles = {ids[0] for ids in breakers if len(ids) == 1}
    return [
        options["multiplier"]
        * options.get("base", 1.75) ** (longest[token] - allowed)
        * math.log2(1 + times[token])
        if token in longest and token not in singles
        else 0.0
        for token in range(5)
    ]


DRY = st.fixed_dictionaries(
    {"multiplier": st.floats(0.1, 5)},
    optional={
        "base": st.floats(1, 3),
        "allowed_length": st.integers(0, 4),
        "penalty_last_n": st.integers(-1, 20),
    },
)


@pytest.mark.parametrize("breakers", [[], [[1], [2, 3]]], ids=str)
@given(
    texts=st.lists(st.lists(st.integers(1, 4), max_size=40), min_size=1, max_size=3), options=DRY
)
@example(texts=[[4, 1, 2, 4, 3, 4, 1, 2, 4]], options={"multiplier": 1.0})  # alike beyond a breaker
def test_dry_penalises_what_would_extend_a_repetition_without_a_breaker(texts, options, breakers):
    said = ["".join(letters(4)[token - 1] for token in ids) for ids in breakers]
    made = sampler("dry", 5, **options, sequence_breakers=said)
    out = made(np.zeros((len(texts), 5)), Past(texts=texts))
    for tokens, changed in zip(texts, out, strict=True):
        assert -changed == pytest.approx(plain_dry(tokens, options, breakers), rel=1e-5)


@given(text=st.text(alphabet="ab' \n.", max_size=60), allowed=st.integers(0, 3))
def test_dry_counts_words_and_breaks_none(text, allowed):
    """By the list of the words before: a token is penalised as the first of a word, whatever stands
    between words.
    """
    characters = "\n '.ab"  # ids 1 to 6
    options = {"multiplier": 1.0, "base": 2.0, "allowed_length": allowed}
    made = make("sampler", "dry", context(vocabulary=characters), **options)
    tokens = [characters.index(each) + 1 for each in text]
    out = made(np.zeros((1, 7)), Past(texts=[tokens]))
    words = re.findall("[ab']+", text)
    longest, times = [0] * 7, [0] * 7
    for place in range(1, len(words)):
        length = 0
        while length < place and words[place - 1 - length] == words[-1 - length]:
            length += 1
        first = characters.index(words[place][0]) + 1
        if length >= allowed and text[-1] in "\n .":
            longest[first] = max(longest[first], length)
            times[first] += 1
    expected = np.exp2(np.array(longest) - allowed) * np.log2(1 + np.array(times))
    if run := re.search(r"([ \n.])\1{3,}\Z", text):
        expected[characters.index(run[1]) + 1] = 2.0 ** (len(run[0]) - 4)
    assert -out[0] == pytest.approx(expected, rel=1e-5)


def test_a_sequence_breaker_that_has_no_tokens_breaks_nothing():
    past = Past(texts=[[1, 0, 2, 1, 0, 2, 1, 0]])  # 0 stands for what the vocabulary lacks
    first, second = (
        sampler("dry", 3, multiplier=1.0, sequence_breakers=[each])(np.zeros((1, 3)), past)
        for each in (f"{letters(1)}ß", "ß")
    )
    assert first[0].tolist() == second[0].tolist() != [0, 0, 0]


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
    made = sampler("dry", 3, multiplier=1e9, base=4.0)
    out = made(np.zeros((1, 3), np.float32), Past(texts=[[1] * 20_000]))
    assert out[0].tolist() == [0, -np.float32(1e30), 0]
    slow = sampler("dry", 3, multiplier=1.0, base=1.0000011, penalty_last_n=-1)
    begun = time.thread_time()
    slow(np.zeros((1, 3), np.float32), Past(texts=[[1] * 20_000]))
    sampler("no-repeat-ngram", 3, n=10_000)(np.zeros((1, 3)), Past(texts=[[1, 2] * 10_000]))
    assert time.thread_time() - begun < 0.2
