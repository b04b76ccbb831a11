"""Mirostat, XTC and DRY against definitions of their own, call by call and as whole texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import pytest
from components import component, context, letters, make
from hypothesis import given
from hypothesis import strategies as st

from textgen import Generator
from textgen.generation.chain import END, Chain, Link
from textgen.plugin.component import Offer, Plugin
from textgen.protocols import Ids

EPSILON = 1e-4
OPTIONS = {
    "mirostat_tau": 3.0,
    "mirostat_eta": 0.2,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.05,
    "dry_multiplier": 0.8,
}


@attrs.frozen
class Past:
    """textgen.protocols.History, made by hand."""

    texts: Sequence[Sequence[int]] = ()
    state: dict[str, Any] = attrs.field(factory=dict)
    numbers: Any = None

    def tokens(self, row: int) -> Ids:
        return np.array(self.texts[row], np.int64)

    def random(self, count: int = 1) -> Any:
        return self.numbers


def softmax(row: Sequence[float]) -> list[float]:
    weights = [math.exp(x - max(row)) for x in row]
    return [weight / math.fsum(weights) for weight in weights]


def plain_mirostat(row: Sequence[float], mu: float) -> list[float]:
    """llama.cpp's mirostat_v2: sorted, cut before the first token of more surprise than mu, but for the first."""
    weights = softmax(row)
    order = sorted(range(len(row)), key=lambda token: -weights[token])
    end = next(
        (
            i
            for i, token in enumerate(order)
            if weights[token] == 0 or -math.log2(weights[token]) > mu
        ),
        len(row),
    )
    kept = order[: max(end, 1)]
    return [x if token in kept else -math.inf for token, x in enumerate(row)]


def plain_xtc(row: Sequence[float], threshold: float) -> list[float]:
    """llama.cpp's xtc, once chance has it that it acts: of the tokens above the threshold only the last stays."""
    weights = softmax(row)
    order = sorted(range(len(row)), key=lambda token: (-weights[token], -token))
    above = sum(weights[token] >= threshold for token in order)
    removed = order[: above - 1] if above > 1 else []
    return [-math.inf if token in removed else x for token, x in enumerate(row)]


def plain_dry(
    tokens: Sequence[int],
    size: int,
    options: dict[str, Any],
    breakers: Sequence[Sequence[int]] = (),
) -> list[float]:
    """What llama.cpp's dry subtracts from the logit of each token, by comparing the end with every place before."""
    last_n = options.get("penalty_last_n", -1)
    window = list(tokens) if last_n < 0 else list(tokens)[max(0, len(tokens) - last_n) :]
    allowed, limit = options.get("allowed_length", 2), len(window)
    for ids in breakers:
        for end in range(len(ids), len(window) + 1):
            if window[end - len(ids) : end] == list(ids):
                limit = min(limit, len(window) - end)
    longest: dict[int, int] = {}
    for place in range(len(window) - 1):
        length = 0
        while length <= place and window[place - length] == window[len(window) - 1 - length]:
            length += 1
        length = min(length, limit)
        if length >= allowed and limit >= allowed and len(window) > allowed:
            longest[window[place + 1]] = max(length, longest.get(window[place + 1], 0))
    singles = {ids[0] for ids in breakers if len(ids) == 1}
    return [
        options["multiplier"] * options.get("base", 1.75) ** (longest[token] - allowed)
        if token in longest and token not in singles
        else 0.0
        for token in range(size)
    ]


logits_row = st.lists(st.integers(-80, 80).map(lambda x: x / 4), min_size=2, max_size=10)


@given(row=logits_row, mu=st.floats(-1, 12))
def test_mirostat_cuts_off_what_surprises_more_than_mu(row: list[float], mu: float) -> None:
    surprises = [-math.log2(weight) for weight in softmax(row)]
    if any(abs(surprise - mu) < EPSILON for surprise in surprises):
        return
    made = make("sampler", "mirostat", context(vocabulary=letters(3)))
    out = made(np.array([row]), Past(state={"mu": np.array([mu])}))
    best = row.index(max(row))
    expected = plain_mirostat(row, mu)
    if sum(x > -math.inf for x in expected) == 1 and row.count(max(row)) > 1:
        expected = [
            x if token == best else -math.inf for token, x in enumerate(row)
        ]  # of equals, the first
    assert out[0].tolist() == expected


def test_mirostat_moves_mu_by_what_a_token_surprised() -> None:
    made = make("sampler", "mirostat", context(vocabulary=letters(3)), tau=4.0, eta=0.25)
    assert {name: float(value) for name, value in made.start(np.array([1, 2])).items()} == {
        "mu": 8.0
    }
    logits = np.array([[0.0, 1.0, -math.inf, 2.0], [3.0, -math.inf, 0.5, -math.inf]])
    after = made.accept(np.array([3, 2]), logits, Past(state={"mu": np.array([7.0, 3.0])}))["mu"]
    for row, (token, mu) in enumerate([(3, 7.0), (2, 3.0)]):
        surprise = -math.log2(softmax(logits[row].tolist())[token])
        assert after[row] == pytest.approx(mu - 0.25 * (surprise - 4.0), rel=1e-9)


@given(
    rows=st.lists(
        st.lists(st.floats(-5, 5, width=32), min_size=5, max_size=5), min_size=1, max_size=3
    )
)
def test_xtc_excludes_all_but_the_last_of_the_likely(rows: list[list[float]]) -> None:
    if any(abs(weight - 0.1) < EPSILON for row in rows for weight in softmax(row)):
        return
    made = make("sampler", "xtc", context(vocabulary=letters(4)), probability=0.5)
    numbers = np.array([[0.499], [0.501], [0.0]])[: len(rows)]
    out = made(np.array(rows), Past(numbers=numbers))
    for row, changed, number in zip(rows, out, numbers[:, 0], strict=True):
        assert changed.tolist() == (plain_xtc(row, 0.1) if number < 0.5 else row)


DRY = st.fixed_dictionaries(
    {"multiplier": st.floats(0.1, 5)},
    optional={
        "base": st.floats(1, 3),
        "allowed_length": st.integers(0, 4),
        "penalty_last_n": st.integers(-1, 20),
    },
)


@given(
    texts=st.lists(st.lists(st.integers(1, 4), max_size=30), min_size=1, max_size=3), options=DRY
)
def test_dry_penalises_what_would_extend_a_repetition(
    texts: list[list[int]], options: dict[str, Any]
) -> None:
    made = make("sampler", "dry", context(vocabulary=letters(4)), **options)
    out = made(np.zeros((len(texts), 5)), Past(texts))
    for tokens, changed in zip(texts, out, strict=True):
        expected = (
            plain_dry(tokens, 5, options) if options.get("penalty_last_n") != 0 else [0.0] * 5
        )
        assert (-changed).tolist() == pytest.approx(expected, rel=1e-5)


@given(tokens=st.lists(st.integers(1, 4), max_size=40), options=DRY)
def test_dry_looks_over_no_sequence_breaker(tokens: list[int], options: dict[str, Any]) -> None:
    a, b, c, _ = letters(4)  # ids 1 to 4
    made = make(
        "sampler", "dry", context(vocabulary=letters(4)), **options, sequence_breakers=(a, b + c)
    )
    out = made(np.zeros((1, 5)), Past([tokens]))
    expected = (
        plain_dry(tokens, 5, options, [(1,), (2, 3)])
        if options.get("penalty_last_n") != 0
        else [0.0] * 5
    )
    assert (-out[0]).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_long_repetition_stays_within_float32_and_takes_no_time() -> None:
    made = make("sampler", "dry", context(vocabulary=letters(2)), multiplier=1e9, base=4.0)
    out = made(np.zeros((1, 3), np.float32), Past([[1] * 20_000]))
    assert np.isfinite(out).all()
    assert out[0].tolist() == [0, -np.float32(1e30), 0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("xtc", {"probability": 0.0}),
        ("dry", {"multiplier": 0.0}),
        ("dry", {"multiplier": 1.0, "penalty_last_n": 0}),
    ],
)
def test_one_that_is_off_adds_no_link(name: str, options: dict[str, Any]) -> None:
    assert make("sampler", name, context(vocabulary="ab"), **options).links == ()


def mixed(word: int) -> int:
    """SplitMix64's mix."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def plain_number(seed: int, index: int, step: int, place: int) -> float:
    """The number of a sampler at a place of the chain; the draw of the token has the place 2**32."""
    gamma = 0x9E3779B97F4A7C15
    state = mixed((seed + gamma) % 2**64)
    for word in (index, step, place):
        state = mixed(((state ^ word) + gamma) % 2**64)
    return (mixed((state + gamma) % 2**64) >> 11) * 2.0**-53


def plain_text(generator: Generator, prompt: str, seed: int, index: int, length: int) -> str:
    """A text with OPTIONS, token by token: logits of the model, DRY, XTC, Mirostat, and the draw."""
    tokenizer = generator.tokenizer
    ids = tokenizer.encode(prompt).tolist()
    size, unknown, mu, begun = (
        tokenizer.vocab_size,
        tokenizer.unknown_id,
        2 * OPTIONS["mirostat_tau"],
        len(ids),
    )
    breakers = [tokenizer.encode(text).tolist() for text in ("\n", ":", '"', "*")]
    breakers = [ids for ids in breakers if ids != [unknown]]
    for step in range(length):
        row = [float(x) for x in generator.logits(ids)[-1]]
        row = [-math.inf if token == unknown else x for token, x in enumerate(row)]
        taken = plain_dry(ids, size, {"multiplier": OPTIONS["dry_multiplier"]}, breakers)
        row = [x - penalty for x, penalty in zip(row, taken, strict=True)]
        if plain_number(seed, index, step, place=1) < OPTIONS["xtc_probability"]:
            row = plain_xtc(row, OPTIONS["xtc_threshold"])
        row = plain_mirostat(row, mu)
        weights = softmax(row)
        token, total = 0, weights[0]
        while total <= plain_number(seed, index, step, place=2**32) * math.fsum(weights):
            token += 1
            total += weights[token]
        mu -= OPTIONS["mirostat_eta"] * (-math.log2(weights[token]) - OPTIONS["mirostat_tau"])
        ids.append(token)
    return tokenizer.decode(np.array(ids[begun:]))


@pytest.mark.parametrize(
    ("prompt", "seed", "index"), [("the ", 0, 0), ("clock", 5, 3), ("t", 2**63 - 1, 2**40)]
)
def test_a_text_is_that_of_the_definitions(
    lively: Generator, prompt: str, seed: int, index: int
) -> None:
    made = lively.generate(prompt, max_new_tokens=70, seed=seed, index=index, **OPTIONS)
    assert [sampler["type"] for sampler in lively.stream("", **OPTIONS).samplers][-3:] == [
        "dry",
        "xtc",
        "mirostat",
    ]
    assert made.text == plain_text(lively, prompt, seed, index, 70)
    plain = lively.generate(prompt, max_new_tokens=70, seed=seed, index=index)
    assert plain.text != made.text, "the samplers change nothing"


@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_mirostat_holds_the_surprise_of_a_text(tau: float) -> None:
    rng, made = (
        np.random.default_rng(0),
        make("sampler", "mirostat", context(vocabulary=letters(3)), tau=tau),
    )
    past, seen = Past(state={"mu": made.start(np.array([]))["mu"][None]}), []
    for _ in range(600):
        logits = made(rng.normal(0, 2, (1, 300)), past)
        weights = np.array(softmax(logits[0].tolist()))
        token = rng.choice(300, p=weights)
        seen.append(-math.log2(weights[token]))
        past = Past(state=made.accept(np.array([token]), logits, past))
    assert np.mean(seen[100:]) == pytest.approx(tau, rel=0.05)


def test_random_numbers_are_even_and_without_neighbours() -> None:
    from textgen.generation.sampling import step_numbers

    streams = np.array([[seed, index] for seed in range(20) for index in range(20)], np.uint64)
    numbers = np.stack(
        [
            step_numbers(streams, np.full(400, step), place, 3)
            for step in range(20)
            for place in (0, 1)
        ]
    )
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=50, range=(0, 1))
    assert abs(counts - counts.mean()).max() < 6 * math.sqrt(counts.mean())
    flat = numbers.reshape(len(numbers), -1)
    assert len(np.unique(flat)) == flat.size
    for one, other in (
        (flat[:, 1:], flat[:, :-1]),
        (flat[1:], flat[:-1]),
        (flat[2:], flat[:-2]),
        (flat[:, 60:], flat[:, :-60]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 6 / math.sqrt(one.size)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mirostat", {"tau": 2.0}),
        ("xtc", {"probability": 0.5}),
        ("dry", {"multiplier": 0.8}),
        ("format", {"regex": ".{4,9}"}),
    ],
)
def test_tensors_of_torch_give_the_same_tokens(name: str, options: dict[str, Any]) -> None:
    """As the engine calls them, with rows that end."""
    import torch

    if name == "format":
        pytest.importorskip("llguidance")
    made, known = (
        make("sampler", name, context(vocabulary=letters(20)), **options),
        component("sampler", name),
    )
    offer = Offer("sampler", known, Plugin(name, "textgen-engine", "0"))
    chain = Chain((Link.of(made, offer, 0, 0),), offer, 21)
    ids, rng = [np.arange(3), np.arange(9), np.array([], np.int64)], np.random.default_rng(0)
    mine, theirs = (chain.begin(ids, [(0, row) for row in range(3)]) for _ in range(2))
    for _ in range(9):
        logits, uniforms = rng.normal(0, 2, (3, 21)).astype(np.float32), rng.random(3)
        expected = chain.pick(logits.copy(), mine, uniforms)
        assert (
            chain.pick(torch.from_numpy(logits.copy()), theirs, uniforms).tolist()
            == expected.tolist()
        )
        one = [
            chain.pick(logits[:1].copy(), rows.rows([0]), uniforms[:1]) for rows in (mine, theirs)
        ]
        assert one[0] == one[1]
    assert name != "format" or chain.pick(logits, mine, uniforms).tolist() == [END] * 3
