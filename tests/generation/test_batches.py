"""Many texts at once: each is what it would be alone."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompts import PROMPTS
from watching import watched

from textgen import Generator, PromptError, UsageError


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stop": ["e", " th"]},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1},
        {"no_repeat_ngram": 3, "temperature": 0.5},
        {"temperature": 0, "echo": True, "max_new_tokens": 100},
        {"stop_tokens": [3, 4], "min_new_tokens": 5, "top_k": 9},
    ],
    ids=["plain", "stops", "penalties", "no-repeat", "greedy", "stop-tokens"],
)
def test_many_are_each_as_if_alone_and_in_order(
    generator: Generator, options: dict[str, Any], batch_size: int
) -> None:
    arguments: dict[str, Any] = {"max_new_tokens": 70, "seed": 11, **options}
    many = list(generator.generate_many(PROMPTS, n=2, batch_size=batch_size, **arguments))
    alone = [
        generator.generate(prompt, index=2 * i + j, **arguments)
        for i, prompt in enumerate(PROMPTS)
        for j in range(2)
    ]
    assert many == alone


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"top_k": 3, "stop": "e"}, {"echo": True, "min_new_tokens": 2}]
)
def test_many_have_the_log_probabilities_of_each_alone(
    generator: Generator, options: dict[str, Any], batch_size: int
) -> None:
    prompts = ["", "the ", "the time traveller", "t"]
    many = list(
        generator.generate_many(
            prompts, n=2, batch_size=batch_size, max_new_tokens=20, logprobs=2, **options
        )
    )
    alone = [
        generator.generate(prompt, index=2 * place + j, max_new_tokens=20, logprobs=2, **options)
        for place, prompt in enumerate(prompts)
        for j in range(2)
    ]
    assert many == alone
    assert all(len(made.logprobs or ()) >= len(made.tokens) for made in many)


def test_many_prompts_are_read_as_their_turn_comes(generator: Generator) -> None:
    taken = itertools.count()

    def prompts() -> Iterator[str]:
        while True:
            next(taken)
            yield "the "

    many = generator.generate_many(prompts(), batch_size=4, max_new_tokens=3)
    assert [next(many).index for _ in range(10)] == list(range(10))
    assert next(taken) < 40


@pytest.mark.fault(34)
def test_a_hundred_threads_get_what_each_would_have_got_alone(generator: Generator) -> None:
    arguments: list[dict[str, Any]] = [
        {
            "seed": i,
            "max_new_tokens": 40,
            "repetition_penalty": 1.1,
            "temperature": [0.0, 0.8][i % 2],
        }
        for i in range(100)
    ]
    expected = [generator.generate(PROMPTS[i % 7], **a).text for i, a in enumerate(arguments)]
    start = threading.Barrier(100)

    def work(i: int) -> str:
        start.wait(60)
        if i % 3 == 0:
            return "".join(generator.stream(PROMPTS[i % 7], **arguments[i]))
        if i % 3 == 1:
            return next(iter(generator.generate_many([PROMPTS[i % 7]], **arguments[i]))).text
        return generator.generate(PROMPTS[i % 7], **arguments[i]).text

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(work, range(100))) == expected


@pytest.mark.slow
@given(
    length=st.integers(0, 150),
    least=st.integers(0, 30),
    stop_tokens=st.lists(st.integers(1, 12), max_size=2),
    stops=st.sampled_from([[], ["the t"], ["e", "  "], ["ll"]]),
    batch_size=st.sampled_from([1, 3, 64]),
)
def test_greedy_in_chunks_is_greedy_step_by_step(
    lively: Generator,
    length: int,
    least: int,
    stop_tokens: list[int],
    stops: list[str],
    batch_size: int,
) -> None:
    """A bias far below rounding changes no choice, but goes through the samplers token by token."""
    arguments: dict[str, Any] = {
        "max_new_tokens": length,
        "min_new_tokens": least,
        "stop_tokens": stop_tokens,
        "stop": stops,
        "temperature": 0,
    }
    steps = [
        lively.generate(prompt, index=i, logit_bias={"t": 1e-30}, **arguments)
        for i, prompt in enumerate(PROMPTS)
    ]
    assert [
        lively.generate(prompt, index=i, **arguments) for i, prompt in enumerate(PROMPTS)
    ] == steps
    assert list(lively.generate_many(PROMPTS, batch_size=batch_size, **arguments)) == steps
    assert ["".join(lively.stream(prompt, **arguments)) for prompt in PROMPTS] == [
        made.text for made in steps
    ]


def test_a_batch_that_is_left_does_no_more_work_and_leaves_no_memory(finished_run: Path) -> None:
    watcher, generator = watched(finished_run)
    many = generator.generate_many(itertools.repeat("the "), batch_size=3, max_new_tokens=5)
    next(many)
    calls = watcher.calls
    del many
    gc.collect()
    assert watcher.calls == calls <= 10
    assert all(history() is None for history in watcher.histories)


@pytest.mark.parametrize("prompt", ["the ", {"prompt": "the ", "temperature": 0.5}], ids=str)
def test_what_is_left_of_many_prompts_when_time_is_over_is_not_read(
    finished_run: Path, prompt: Any
) -> None:
    """Else a time limit of seconds would take minutes."""
    watcher, generator = watched(finished_run)
    tokenizer, encoded = generator.tokenizer, list[str]()

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def encode(self, text: str) -> Any:
            encoded.append(text)
            return tokenizer.encode(text)

    generator = attrs.evolve(generator, tokenizer=Counted())
    made = list(generator.generate_many([prompt] * 2000, time_limit=0, max_new_tokens=5))
    assert [(m.prompt, m.text, m.finish_reason) for m in made] == [("the ", "", "time")] * 2000
    assert watcher.calls == 0
    assert "the " not in encoded


def test_a_prompt_that_is_wrong_is_an_error_under_a_time_limit_too(generator: Generator) -> None:
    many = generator.generate_many(["the ", "a", "é"], time_limit=600, batch_size=1)
    assert [next(many).prompt, next(many).prompt] == ["the ", "a"]
    with pytest.raises(PromptError, match=r"prompts\[2\].*é"):
        next(many)
    with pytest.raises(UsageError, match=r"prompts\[1\].*a string or a list of token ids"):
        list(generator.generate_many(["the ", [0.5]], time_limit=0))
