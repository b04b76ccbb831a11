"""Arguments of generation that are refused, and when."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest

from textgen import (
    Generator,
    PromptError,
    UsageError,
)


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_new_tokens", value) for value in (-1, 10**9 + 1, 1.0, True, "5")),
        *(("seed", value) for value in (-1, 2**64, 0.5, True)),
        *(("index", value) for value in (-1, 2**64)),
        ("unknown_characters", "ignore"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_drawn(
    generator: Generator, name: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=name):
        generator.generate("the", **{name: value})
    with pytest.raises(UsageError, match=name):
        generator.stream("the", **{name: value})


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_new_tokens", value) for value in (-1, 10**10, 2**63)),
        *(("min_new_tokens", value) for value in (-1, 10**10)),
        *(("n", value) for value in (0, -1, 10**6 + 1, 1.0, True)),
        *(("batch_size", value) for value in (0, -1, 1.5)),
        *(
            ("stop", value)
            for value in (["a"] * 1001, "a" * 10_001, "", [""], ["a", 1], ["\ud800"])
        ),
        *(("stop_tokens", value) for value in ([-1], [10**6], [0.5], [1] * 1001, [True])),
        *(("time_limit", value) for value in (-1, math.nan, math.inf, "1")),
        ("echo", 1),
    ],
)
def test_limits_are_checked_before_anything_is_read_or_made(
    generator: Generator, name: str, value: Any
) -> None:
    def prompts() -> Iterator[str]:
        raise AssertionError("the prompts were read")
        yield ""

    with pytest.raises(UsageError, match=name):
        generator.generate_many(prompts(), **{name: value})
    if name not in ("n", "batch_size"):
        with pytest.raises(UsageError, match=name):
            generator.generate("the", **{name: value})
        with pytest.raises(UsageError, match=name):
            generator.stream("the", **{name: value})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cancelled": 5}, "cancelled: expected a function or an event"),
        ({"prompt": None}, "prompt: expected a string or a list of token ids"),
        ({"prompt": ["the"]}, "prompt: expected a string or a list of token ids"),
        ({"max_tokens": 5}, "did you mean 'max_new_tokens'"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
        ({"n": 2}, "n: unknown option; generate_many takes it"),
        ({"logit_bias": {500: 1.0}}, "logit_bias: expected a token id from 0"),
        ({"logit_bias": {"the": 1.0}}, "logit_bias: expected the text of one token"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    generator: Generator, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        generator.generate(**{"prompt": "the ", **arguments})
    with pytest.raises(UsageError, match=said):
        generator.stream(**{"prompt": "the ", **arguments})


def test_what_was_right_once_does_not_make_right_what_equals_it(generator: Generator) -> None:
    for name, right, wrong in (
        ("echo", True, 1),
        ("max_new_tokens", 1, True),
        ("min_new_tokens", 1, 1.0),
    ):
        generator.generate("the ", **{name: right})
        with pytest.raises(UsageError, match=name):
            generator.generate("the ", **{name: wrong})


def test_no_stop_may_be_none(generator: Generator) -> None:
    assert generator.generate("the ", stop=None, stop_tokens=None) == generator.generate("the ")


def test_what_would_never_end_is_refused_where_it_must_end(generator: Generator) -> None:
    for call in (
        generator.generate,
        lambda prompt, **options: list(generator.generate_many([prompt], **options)),
    ):
        with pytest.raises(UsageError, match="never ends"):
            call("the ", max_new_tokens=None)
    assert generator.generate("the ", max_new_tokens=None, stop="e").finish_reason == "stop"


def test_what_is_wrong_is_refused_before_the_first_piece_is_asked_for(generator: Generator) -> None:
    """So that a server knows it while there is still a status code to send."""
    for begin in (generator.stream, lambda *a, **o: asyncio.run(generator.astream(*a, **o))):
        with pytest.raises(UsageError, match="temperature"):
            begin("the ", temperature=-1)
        with pytest.raises(PromptError, match="é"):
            begin("é")
    with pytest.raises(UsageError, match="temperature"):
        generator.generate_many(["the "], temperature=-1)
    with pytest.raises(PromptError, match=r"prompts\[1\].*é") as caught:
        generator.generate_many(["the ", "é"])
    assert caught.value.argument == "prompt"


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"keep_state": "x"}, "keep_state"),
        ({"sampling": 5}, "sampling"),
        ({"stop": [5]}, "stop"),
        ({"stop": itertools.repeat("a")}, "stop"),
        ({"stop_tokens": range(10**12)}, "stop_tokens"),
    ],
)
def test_an_error_names_the_argument_and_takes_no_time(
    generator: Generator, options: dict[str, Any], argument: str
) -> None:
    with pytest.raises(UsageError) as caught:
        generator.generate("the ", **options)
    assert caught.value.argument == argument


def test_unknown_characters_of_a_long_prompt_are_found(generator: Generator) -> None:
    for prompt in (
        "é" * 10**6,
        "the " * 10**5 + "é",
        "".join(map(chr, range(0x4E00, 0x9000))) * 20,
    ):
        with pytest.raises(PromptError) as caught:
            generator.generate(prompt)
        assert caught.value.characters[0] in ("é", "\u4e00")
