"""Every built-in sampler but `format` against a definition of its own."""

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import pytest
from components import context, letters, make
from hypothesis import given
from hypothesis import strategies as st
from raising import raises

from textgen import PipelineError, UsageError, load

EPSILON = 1e-4  # what float32 sums may be off by at the border of a probability


@attrs.frozen(kw_only=True)
class Past:
    """textgen.protocols.History, made by hand."""

    prompts: Sequence[Sequence[int]] = ()
    texts: Sequence[Sequence[int]] = ()
    size: int = 0
    state: dict[str, Any] = attrs.field(factory=dict)
    numbers: Any = None

    @property
    def counts(self):
        return np.array(
            [np.bincount(np.array(row, int), minlength=self.size) for row in self.texts]
        )

    @property
    def prompt_counts(self):
        return attrs.evolve(self, texts=self.prompts).counts

    def tokens(self, row):
        return np.array([*(self.prompts[row] if self.prompts else ()), *self.texts[row]], np.int64)

    def random(self, count=1):
        return self.numbers


@st.composite
def cases(draw, least=1):
    """Logits (B, V) with ties and -inf, at least one token possible in each row; and a history."""
    rows, size = draw(st.integers(1, 4)), draw(st.integers(least, 12))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tied = chance.choice([-math.inf, -3.0, 0.0, 0.5, 2.0], (rows, size))  # and what can never come
    logits = np.where(chance.random((rows, size)) < 0.5, tied, chance.uniform(-30, 30, tied.shape))
    logits = np.float32(logits).astype(draw(st.sampled_from([np.float32, np.float64])))
    for row in logits:
        if not np.isfinite(row).any():
            row[chance.integers(size)] = 1.0
    prompts, texts = (
        [chance.integers(0, size, chance.integers(11)).tolist() for _ in range(rows)]
        for _ in range(2)
    )
    return logits, Past(prompts=prompts, texts=texts, size=size)


def sampler(name, size, **options):
    return make("sampler", name, context(vocabulary=letters(size - 1)), **options)


def softmax(row):
    weights = [math.exp(float(x) - float(max(row))) for x in row]
    return [weight / math.fsum(weights) for weight in weights]


def masked(row, kept):
    return [float(x) if token in kept else -math.inf for token, x in enumerate(row)]


def applied(case, name, **options):
    logits, past = case
    return sampler(name, logits.shape[1], **options)(logits, past)


def rows(case, name, **options):
    """Each row of logits, and what a sampler makes of it."""
    return zip(case[0], applied(case, name, **options), strict=True)


@given(case=cases(), k=st.integers(1, 14))
def test_greedy_and_top_k_keep_the_first_of_the_best(case, k):
    for name, options, number in (("greedy", {}, 1), ("top-k", {"k": k}, k)):
        for row, kept in rows(case, name, **options):
            best = sorted(range(len(row)), key=lambda token: -row[token])
            assert kept.tolist() == masked(row, set(best[:number]))


@given(case=cases(), temperature=st.floats(0.05, 20))
def test_temperature_divides(case, temperature):
    out = applied(case, "temperature", temperature=temperature)
    assert out == pytest.approx(np.float64(case[0]) / temperature, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("temperature", {"temperature": value}) for value in (1e-10, 5e-324, 1e39, 1.7e308)),
        ("penalties", {"repetition": 1.7e308}),
        ("penalties", {"repetition": 5e-324}),
        ("penalties", {"presence": -1.7e308}),
        ("penalties", {"frequency": -1.7e308}),
        ("logit-bias", {"bias": {letters(1): 1e39}}),
        ("logit-bias", {"bias": {letters(1): -1.7e308}}),
    ],
)
@given(case=cases(least=2))
def test_a_value_beyond_float32_still_gives_a_distribution(case, name, options):
    for row, changed in rows(case, name, **options):
        assert (changed < np.inf).all()  # and no NaN
        assert np.isfinite(changed[row.argmax()])


@given(case=cases(), p=st.floats(0.001, 1))
def test_top_p_keeps_the_shortest_beginning_that_reaches_p(case, p):
    for row, out in rows(case, "top-p", p=p):
        weights = softmax(row)
        best = sorted(range(len(row)), key=lambda token: -row[token])  # of equals the lower ids
        count = int(np.isfinite(out).sum())
        assert out.tolist() == masked(row, set(best[:count]))
        sums = np.cumsum([weights[token] for token in best])
        assert count == 1 or sums[count - 2] < p + EPSILON
        assert sums[count - 1] >= p - EPSILON


def test_top_p_keeps_the_token_that_reaches_p_and_none_after_it():
    logits = math.log(2) * np.array([[-2.0, -1, -3, -3]])  # sums of powers of two are exact
    made = [sampler("top-p", 4, p=p)(logits, Past()) for p in (0.5, 0.75, 0.875)]
    assert [np.isfinite(out).sum() for out in made] == [1, 2, 3]


@given(case=cases(), p=st.floats(0.001, 1))
def test_min_p_keeps_what_is_likely_enough(case, p):
    for row, kept in rows(case, "min-p", p=p):
        weights = softmax(row)
        for token, weight in enumerate(weights):
            ratio = weight / max(weights)
            if ratio > p * (1 + EPSILON):
                assert kept[token] == row[token]
            if ratio < p * (1 - EPSILON):
                assert kept[token] == -math.inf
        assert kept[np.argmax(row)] == row.max()


@given(case=cases(), penalty=st.floats(0.1, 10))
def test_the_repetition_penalty_is_a_factor(case, penalty):
    logits, past = case
    seen = past.counts + past.prompt_counts > 0
    expected = np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)
    out = applied(case, "penalties", repetition=penalty)
    assert out == pytest.approx(expected, rel=1e-6)


@given(case=cases(), presence=st.floats(-5, 5), frequency=st.floats(-5, 5))
def test_the_presence_and_frequency_penalties_are_subtracted(case, presence, frequency):
    logits, past = case
    expected = np.float64(logits) - presence * (past.counts > 0) - frequency * past.counts
    out = applied(case, "penalties", presence=presence, frequency=frequency)
    assert out == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(case=cases(least=2), bias=st.floats(-100, 100))
def test_the_logit_bias_is_added_to_the_token_of_that_text(case, bias):
    expected = case[0].astype(float)
    expected[:, 1] += bias  # id 0 is <unk>
    out = applied(case, "logit-bias", bias={letters(1): bias})
    assert out == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("text", ["", "ab", "é"])
def test_a_bias_on_what_is_not_one_token_is_refused(text):
    with pytest.raises(PipelineError):
        make("sampler", "logit-bias", context(vocabulary="abc"), bias={text: 1.0})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("temperature", {"temperature": 1.0}),
        ("top-k", {"k": 0}),
        ("top-p", {"p": 1.0}),
        ("min-p", {"p": 0.0}),
        ("penalties", {}),
        ("logit-bias", {"bias": {}}),
        ("xtc", {"probability": 0.0}),
        ("dry", {"multiplier": 0.0}),
        ("format", {}),
    ],
)
def test_a_sampler_that_is_off_adds_no_link(name, options):
    assert sampler(name, 3, **options).links == ()


def test_a_chain_is_in_the_users_order(finished_run):
    """min-p after a high temperature keeps more than before it."""
    chain = [{"type": "min-p", "p": 0.5}, {"type": "temperature", "temperature": 50.0}]
    first, last = (
        load(finished_run, sampler=order).generate("the ", max_new_tokens=200)
        for order in (chain, chain[::-1])
    )
    assert len(set(first.tokens)) < len(set(last.tokens))


NUMBERS = (math.nan, math.inf, -math.inf, "1", True)
NOT_NEGATIVE = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
)


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in NOT_NEGATIVE for value in (-0.1, *NUMBERS)),
        *((f"{name}_penalty", value) for name in ("presence", "frequency") for value in NUMBERS),
    ],
)
def test_options_out_of_range_are_refused(generator, name, value):
    with raises(UsageError, argument=name):
        generator.generate("the", **{name: value})


@given(quarters=st.lists(st.integers(-20, 20), min_size=5, max_size=5))
def test_xtc_excludes_all_but_the_last_of_the_likely(quarters):
    """As llama.cpp's, where chance has it that it acts."""
    row = [each / 4 for each in quarters]  # whose probabilities are equal or plainly differ
    weights = softmax(row)
    if any(abs(weight - 0.1) < EPSILON for weight in weights):
        return
    out = sampler("xtc", 5, probability=0.5)(
        np.array([row] * 3), Past(numbers=np.array([[0.499], [0.501], [0.0]]))
    )
    likely = [token for token, weight in enumerate(weights) if weight > 0.1]
    removed = set(likely) - {min(likely, key=lambda token: row[token])}
    acted = masked(row, set(range(5)) - removed)
    assert out.tolist() == [acted, row, acted]
    rest = masked(row, {1, 3})
    out = sampler("xtc", 5, probability=1.0, threshold=0.0)(
        np.array([rest]), Past(numbers=np.zeros((1, 1)))
    )
    assert np.isfinite(out).sum() == 1
