"""Every built-in sampler against a definition of its own, on NumPy and torch alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from components import component, context, letters, make
from hypothesis import given
from hypothesis import strategies as st

from textgen import Engine, Generator, PipelineError, UsageError, load

EPSILON = 1e-4  # what float32 sums may be off by at the border of a probability
CHAIN = (
    *("penalties", "logit-bias", "no-repeat-ngram"),
    *("top-k", "typical", "top-p", "min-p", "temperature"),
)


@attrs.frozen
class Past:
    """textgen.protocols.History, counted from lists."""

    prompts: list[list[int]]
    texts: list[list[int]]
    size: int

    @property
    def counts(self) -> Any:
        return self._count(self.texts)

    @property
    def prompt_counts(self) -> Any:
        return self._count(self.prompts)

    def tokens(self, row: int) -> Any:
        return np.array(self.prompts[row] + self.texts[row], np.int64)

    def row(self, row: int) -> Past:
        return Past([self.prompts[row]], [self.texts[row]], self.size)

    def _count(self, rows: list[list[int]]) -> Any:
        return np.array(
            [[Counter(row)[token] for token in range(self.size)] for row in rows], np.int32
        )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, Past]:
    """Logits (B, V) with ties and -inf, at least one token possible in each row; and a history."""
    rows, size = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    value = st.one_of(
        st.sampled_from([-math.inf, -3.0, 0.0, 0.5, 2.0]),  # ties, and what can never come
        st.floats(-30, 30, width=32),
    )
    logits = np.array([[draw(value) for _ in range(size)] for _ in range(rows)], dtype)
    for row in logits:
        if not np.isfinite(row).any():
            row[draw(st.integers(0, size - 1))] = 1.0
    ids = st.lists(st.integers(0, size - 1), max_size=10)
    past = Past([draw(ids) for _ in range(rows)], [draw(ids) for _ in range(rows)], size)
    return logits, past


def sampler(name: str, size: int, **options: Any) -> Any:
    return make("sampler", name, context(vocabulary=letters(size - 1)), **options)


def drawable(logits: Any) -> Any:
    return np.isfinite(logits).any(axis=-1)


def order_of(keys: list[float]) -> list[int]:
    """Token ids by ascending key; of equals, the lower id first."""
    return sorted(range(len(keys)), key=lambda token: (keys[token], token))


def softmax(row: Any) -> list[float]:
    weights = [math.exp(float(x) - float(max(row))) for x in row]
    return [weight / math.fsum(weights) for weight in weights]


def masked(row: Any, kept: set[int]) -> list[float]:
    return [float(x) if token in kept else -math.inf for token, x in enumerate(row)]


def check_nucleus(row: Any, out: Any, keys: list[float], p: float) -> None:
    """What is kept comes first in the order of `keys`, and is the shortest such beginning that reaches `p`."""
    weights = softmax(row)
    kept = {token for token in range(len(row)) if np.isfinite(out[token])}
    possible = [token for token in range(len(row)) if weights[token] > 0]
    assert kept
    for token in kept:
        assert out[token] == row[token]
    dropped = [token for token in possible if token not in kept]
    if dropped:
        assert max(keys[token] for token in kept) <= min(keys[token] for token in dropped) + EPSILON
        assert math.fsum(weights[token] for token in kept) >= p - EPSILON
    last = max(kept, key=lambda token: (keys[token], token))
    assert len(kept) == 1 or math.fsum(weights[token] for token in kept - {last}) < p + EPSILON
    for a in range(len(row)):  # of equals the lower ids stay
        for b in range(a):
            assert not (row[a] == row[b] and a in kept and b not in kept)


@given(case=cases())
def test_greedy_keeps_the_first_of_the_best(case: tuple[Any, Past]) -> None:
    logits, past = case
    out = sampler("greedy", logits.shape[1])(logits, past)
    for row, kept in zip(logits, out, strict=True):
        assert kept.tolist() == masked(row, {order_of([-float(x) for x in row])[0]})


@given(case=cases(), temperature=st.floats(0.05, 20))
def test_temperature_divides(case: tuple[Any, Past], temperature: float) -> None:
    logits, past = case
    out = sampler("temperature", logits.shape[1], temperature=temperature)(logits, past)
    assert out == pytest.approx(np.float64(logits) / temperature, rel=1e-6)


@pytest.mark.fault(31)
@given(case=cases())
def test_temperature_zero_is_greedy(case: tuple[Any, Past]) -> None:
    logits, past = case
    size = logits.shape[1]
    frozen = sampler("temperature", size, temperature=0.0)
    assert np.array_equal(frozen(logits, past), sampler("greedy", size)(logits, past))
    assert frozen.deterministic


@given(case=cases(), temperature=st.sampled_from([1e-10, 1e-38, 1e-45, 1e-300, 5e-324]))
def test_a_temperature_next_to_zero_still_gives_a_distribution(
    case: tuple[Any, Past], temperature: float
) -> None:
    logits, past = case
    out = sampler("temperature", logits.shape[1], temperature=temperature)(logits, past)
    assert not np.isnan(out).any()
    assert not (out == np.inf).any()
    for row, given_row in zip(out, logits, strict=True):
        assert set(np.flatnonzero(row == row.max())) == set(
            np.flatnonzero(given_row == given_row.max())
        )


EXTREMES = [
    *[("temperature", {"temperature": value}) for value in (1e31, 1e39, 1.7e308)],
    *[("penalties", {"repetition": value}) for value in (1e39, 1.7e308, 1e-39, 5e-324)],
    *[
        ("penalties", {kind: v})
        for kind in ("presence", "frequency")
        for v in (1e39, -1e39, -1.7e308)
    ],
    *[("logit-bias", {"bias": {"a": value}}) for value in (1e39, -1.7e308)],
]


@pytest.mark.parametrize(("name", "options"), EXTREMES)
@given(case=cases())
def test_a_value_beyond_float32_still_gives_a_distribution(
    case: tuple[Any, Past], name: str, options: dict[str, Any]
) -> None:
    logits, past = case
    if name == "logit-bias":
        options = {"bias": {letters(1)[0]: options["bias"]["a"]}}
    out = (
        sampler(name, max(2, logits.shape[1]), **options)(logits, past)
        if logits.shape[1] > 1
        else logits
    )
    assert not np.isnan(out).any()
    assert not (out == np.inf).any()
    assert np.array_equal(np.isfinite(out), np.isfinite(logits))


@given(case=cases(), k=st.integers(1, 14))
def test_top_k_keeps_the_k_best(case: tuple[Any, Past], k: int) -> None:
    logits, past = case
    out = sampler("top-k", logits.shape[1], k=k)(logits, past)
    for row, kept in zip(logits, out, strict=True):
        assert kept.tolist() == masked(row, set(order_of([-float(x) for x in row])[:k]))


@given(case=cases(), p=st.floats(0.001, 1))
def test_top_p_keeps_the_shortest_beginning_that_reaches_p(
    case: tuple[Any, Past], p: float
) -> None:
    logits, past = case
    out = sampler("top-p", logits.shape[1], p=p)(logits, past)
    for row, kept in zip(logits, out, strict=True):
        check_nucleus(row, kept, [-float(x) for x in row], p)


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (0.5, [1]),
        (0.500001, [1, 0]),
        (0.75, [1, 0]),
        (0.8, [1, 0, 2]),
        (0.875, [1, 0, 2]),
        (0.9, [1, 0, 2, 3]),
    ],
)
def test_top_p_keeps_the_token_that_reaches_p(p: float, kept: list[int]) -> None:
    logits = np.log2(np.array([[0.25, 0.5, 0.125, 0.125]])) * math.log(
        2
    )  # sums of powers of two are exact
    out = sampler("top-p", 4, p=p)(logits, Past([[]], [[]], 4))
    assert set(np.flatnonzero(np.isfinite(out[0]))) == set(kept)


@given(case=cases(), p=st.floats(0.001, 1))
def test_typical_keeps_what_surprises_as_expected(case: tuple[Any, Past], p: float) -> None:
    logits, past = case
    out = sampler("typical", logits.shape[1], p=p)(logits, past)
    for row, kept in zip(logits, out, strict=True):
        weights = softmax(row)
        entropy = -math.fsum(w * math.log(w) for w in weights if w)
        check_nucleus(
            row, kept, [abs(-math.log(w) - entropy) if w else math.inf for w in weights], p
        )


@given(case=cases(), p=st.floats(0.001, 1))
def test_min_p_keeps_what_is_likely_enough(case: tuple[Any, Past], p: float) -> None:
    logits, past = case
    out = sampler("min-p", logits.shape[1], p=p)(logits, past)
    for row, kept in zip(logits, out, strict=True):
        weights = softmax(row)
        for token, weight in enumerate(weights):
            ratio = weight / max(weights)
            if ratio > p * (1 + EPSILON):
                assert kept[token] == row[token]
            if ratio < p * (1 - EPSILON):
                assert kept[token] == -math.inf
        assert kept[np.argmax(row)] == row.max()


@given(case=cases(), penalty=st.floats(0.1, 10))
def test_the_repetition_penalty_is_a_factor(case: tuple[Any, Past], penalty: float) -> None:
    logits, past = case
    out = sampler("penalties", logits.shape[1], repetition=penalty)(logits, past)
    for b, row in enumerate(logits):
        for token, x in enumerate(map(float, row)):
            seen = token in past.prompts[b] + past.texts[b]
            expected = (x / penalty if x > 0 else x * penalty) if seen else x
            assert float(out[b, token]) == pytest.approx(expected, rel=1e-6)


@given(
    case=cases(),
    penalty=st.floats(-5, 5),
    name=st.sampled_from(["presence", "frequency"]),
)
def test_the_presence_and_frequency_penalties_are_subtracted(
    case: tuple[Any, Past], penalty: float, name: str
) -> None:
    logits, past = case
    out = sampler("penalties", logits.shape[1], **{name: penalty})(logits, past)
    for b, row in enumerate(logits):
        for token, x in enumerate(map(float, row)):
            times = past.texts[b].count(token)
            times = min(times, 1) if name == "presence" else times
            assert float(out[b, token]) == pytest.approx(x - penalty * times, rel=1e-5, abs=1e-5)


@given(case=cases(), n=st.integers(1, 5))
def test_no_repeat_ngram_forbids_what_would_repeat(case: tuple[Any, Past], n: int) -> None:
    logits, past = case
    out = sampler("no-repeat-ngram", logits.shape[1], n=n)(logits, past)
    for b, row in enumerate(logits):
        text = past.prompts[b] + past.texts[b]
        grams = [text[i : i + n] for i in range(len(text) - n + 1)]
        allowed = {
            t
            for t in range(len(row))
            if [*text[len(text) - n + 1 :], t] not in grams or len(text) < n - 1
        }
        left = any(row[t] > -np.inf for t in allowed)
        assert out[b].tolist() == masked(row, allowed if left else set(range(len(row))))


@given(case=cases(), bias=st.floats(-100, 100))
def test_the_logit_bias_is_added_to_the_token_of_that_text(
    case: tuple[Any, Past], bias: float
) -> None:
    logits, past = case
    if logits.shape[1] < 2:
        return
    out = sampler("logit-bias", logits.shape[1], bias={letters(1): bias})(logits, past)
    expected = np.float64(logits)
    expected[:, 1] += bias  # id 0 is <unk>
    assert out == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("text", ["", "ab", "é"])
def test_a_bias_on_what_is_not_one_token_is_refused(text: str) -> None:
    with pytest.raises(PipelineError, match=r"one token of the vocabulary"):
        make("sampler", "logit-bias", context(vocabulary="abc"), bias={text: 1.0})


def links(size: int) -> dict[str, Any]:
    """Each sampler, with options that change something."""
    bias = {letters(1): 2.5} if size > 1 else {}
    return {
        "greedy": {},
        "temperature": {"temperature": 0.7},
        "top-k": {"k": 3},
        "top-p": {"p": 0.8},
        "min-p": {"p": 0.1},
        "typical": {"p": 0.7},
        "penalties": {"repetition": 1.3, "presence": 0.4, "frequency": 0.3},
        "logit-bias": {"bias": bias},
        "no-repeat-ngram": {"n": 2},
        "dry": {"multiplier": 0.8},
    }


def test_no_sampler_is_left_out() -> None:
    offered = {offer.name for offer in Engine().plugins().offers("sampler")}
    assert {*links(5)} <= offered


@pytest.mark.parametrize("name", links(5))
@given(case=cases())
def test_every_sampler_keeps_its_contract(name: str, case: tuple[Any, Past]) -> None:
    import torch

    logits, past = case
    size = logits.shape[1]
    made = sampler(name, size, **links(size)[name])
    before = logits.copy()
    logits.flags.writeable = False
    out = made(logits, past)
    assert np.array_equal(logits, before), "it wrote into its input"
    assert (out.shape, out.dtype) == (logits.shape, logits.dtype)
    assert not np.isnan(out).any()
    if name != "no-repeat-ngram":  # which may forbid all there is
        assert drawable(out).all()
    for b in range(len(logits)):  # rows are independent
        assert np.array_equal(made(logits[b : b + 1], past.row(b)), out[b : b + 1])
    tensor = made(torch.from_numpy(before.copy()), past)
    assert tensor.dtype == (torch.float32 if logits.dtype == np.float32 else torch.float64)
    assert np.array_equal(np.isfinite(tensor.numpy()), np.isfinite(out))
    assert tensor.numpy() == pytest.approx(out, rel=1e-6)


OFF: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 1.0},
    "top-k": {"k": 0},
    "top-p": {"p": 1.0},
    "min-p": {"p": 0.0},
    "typical": {"p": 1.0},
    "penalties": {},
    "logit-bias": {"bias": {}},
    "no-repeat-ngram": {"n": 0},
    "xtc": {"probability": 0.0},
    "dry": {"multiplier": 0.0},
}


@pytest.mark.parametrize("name", OFF)
@given(case=cases())
def test_a_sampler_that_is_off_changes_nothing(name: str, case: tuple[Any, Past]) -> None:
    logits, past = case
    assert np.array_equal(sampler(name, logits.shape[1], **OFF[name])(logits, past), logits)


def test_options_make_the_chain_of_their_samplers_in_the_documented_order(
    finished_run: Path, generator: Generator
) -> None:
    options: dict[str, Any] = {
        "temperature": 0.8,
        "min_p": 0.02,
        "top_p": 0.9,
        "typical_p": 0.95,
        "top_k": 6,
        "no_repeat_ngram": 3,
        "logit_bias": {"e": 1.5},
        "frequency_penalty": 0.1,
        "presence_penalty": 0.3,
        "repetition_penalty": 1.2,
    }
    tables = []
    for name in CHAIN:
        keys = component("sampler", name).arguments().items()
        tables.append({"type": name, **{key: options[argument] for argument, key in keys}})
    expected = load(finished_run, sampler=tables).generate("the ", max_new_tokens=80)
    assert generator.generate("the ", max_new_tokens=80, **options) == expected


def test_options_at_a_call_make_the_chain_that_a_pipeline_would_have(
    finished_run: Path, generator: Generator
) -> None:
    chain = [{"type": "top-k", "k": 4}, {"type": "temperature", "temperature": 0.6}]
    expected = load(finished_run, sampler=chain).generate("the ", max_new_tokens=60)
    assert generator.generate("the ", max_new_tokens=60, temperature=0.6, top_k=4) == expected
    other = load(finished_run, sampler=[{"type": "greedy"}])
    assert other.generate("the ", max_new_tokens=60, temperature=0.6, top_k=4) == expected


def test_a_chain_is_in_the_users_order(finished_run: Path) -> None:
    """min-p after a high temperature keeps more than before it."""
    cut = {"type": "min-p", "p": 0.5}
    hot = {"type": "temperature", "temperature": 50.0}
    first = load(finished_run, sampler=[cut, hot]).generate("the ", max_new_tokens=200)
    last = load(finished_run, sampler=[hot, cut]).generate("the ", max_new_tokens=200)
    assert len(set(first.tokens)) < len(set(last.tokens))


@pytest.mark.fault(31)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf, "1", True])
@pytest.mark.parametrize(
    "name",
    [
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "no_repeat_ngram",
    ],
)
def test_options_out_of_range_are_refused(generator: Generator, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        generator.generate("the", **{name: value})
    with pytest.raises(UsageError, match=name):
        generator.stream("the", **{name: value})


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", True])
def test_penalties_may_be_negative_but_are_numbers(
    generator: Generator, name: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=name):
        generator.generate("the", **{name: value})
    assert len(generator.generate("the", max_new_tokens=5, **{name: -0.5}).tokens) == 5


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"temprature": 1.0}, "temperature"),
        ({"topk": 3}, "top_k"),
        ({"max_tokens": 3}, ""),
        ({"logit_bais": {}}, "logit_bias"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(
    generator: Generator, options: dict[str, Any], hint: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){next(iter(options))}.*{hint}"):
        generator.generate("the", **options)


@pytest.mark.parametrize("bias", [{"the": 1.0}, {"": 1.0}, {"é": 1.0}])
def test_a_bias_on_other_than_one_token_is_a_usage_error(
    generator: Generator, bias: dict[str, float]
) -> None:
    with pytest.raises(UsageError, match="one token"):
        generator.generate("the", logit_bias=bias)


def test_a_bias_forbids_or_forces(generator: Generator) -> None:
    plain = generator.generate("the ", max_new_tokens=200)
    assert "t" in plain.text
    assert "t" not in generator.generate("the ", max_new_tokens=200, logit_bias={"t": -1000}).text
    assert generator.generate("the ", max_new_tokens=20, logit_bias={"t": 1000}).text == "t" * 20
    assert generator.generate("the ", max_new_tokens=20, logit_bias={"t": 1e300}).text == "t" * 20


def test_no_ngram_comes_twice(generator: Generator) -> None:
    assert (
        len(generator.generate("the ", max_new_tokens=100, no_repeat_ngram=1).tokens) == 100
    )  # of fewer characters
    text = str(generator.generate("the ", max_new_tokens=100, no_repeat_ngram=3))
    grams = [text[i : i + 3] for i in range(len(text) - 2)]
    assert len(set(grams)) == len(grams)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--top-k", "-1"),
        ("--top-k", "2.5"),
        ("--logit-bias", "the=1"),
        ("--logit-bias", "t"),
        ("--logit-bias", "t=nan"),
    ],
)
def test_the_command_refuses_them_with_exit_code_2(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    failed = textgen("generate", finished_run, "-p", "the", *arguments, cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, ""), failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_command_suggests_the_nearest_option(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    failed = textgen("generate", finished_run, "--temprature", "1", cwd=tmp_path)
    assert failed.code == 2
    assert "--temperature" in failed.stderr
