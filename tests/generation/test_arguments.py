"""Arguments of generation that are refused, and when."""

import asyncio
import math

import pytest

from textgen import PromptError, UsageError


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_new_tokens", value) for value in (-1, 10**10, 1.0, True, "5")),
        *(("min_new_tokens", value) for value in (-1, 10**10)),
        *(("n", value) for value in (0, 10**6 + 1, 1.0, True)),
        ("batch_size", 0),
        *(("stop", value) for value in ([5], ["a"] * 1001, "a" * 10_001, "", [""], ["\ud800"])),
        *(("stop_tokens", value) for value in ([-1], [10**6], [0.5], [1] * 1001, [True])),
        *(("time_limit", value) for value in (-1, math.nan, math.inf, "1")),
        *(("seed", value) for value in (-1, 2**64, 0.5, True, "chance")),
        *(("index", value) for value in (-1, 2**64)),
        *(("logprobs", value) for value in (-1, 1.0, True)),
        ("unknown_characters", "ignore"),
        ("echo", 1),
        ("keep_state", "x"),
        ("cancelled", 5),
        ("sampling", 5),
        ("temprature", 1.0),
        ("logit_bias", {500: 1.0}),
        ("logit_bias", {"the": 1.0}),
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_read_or_made(generator, name, value):
    prompts = iter(["the"])
    with pytest.raises(UsageError) as caught:
        generator.generate_many(prompts, **{name: value})
    assert (caught.value.argument or "").partition(".")[0] == name
    assert next(prompts) == "the"
    if name not in ("n", "batch_size"):
        for begin in (generator.generate, generator.stream):
            with pytest.raises(UsageError) as caught:
                begin("the", **{name: value})
            assert (caught.value.argument or "").partition(".")[0] == name


@pytest.mark.parametrize("prompt", [["the"], [0.5], [[1, 2]], [-1], [10**6], 5, None])
def test_what_is_no_prompt_is_a_usage_error(generator, prompt):
    with pytest.raises(UsageError) as caught:
        generator.generate(prompt)
    assert caught.value.argument == "prompt"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ({"max_tokens": 5}, "'max_new_tokens'"),
        ({"temprature": 1.0}, "'temperature'"),
        ({"prompt": "the "}, "'prompts'"),
    ],
)
def test_a_similar_name_is_suggested(generator, arguments, meant):
    with pytest.raises(UsageError, match=meant):
        generator.generate_many(["the "], **arguments)


def test_none_is_no_stop_and_no_limit(generator):
    assert generator.generate("the ", stop=None, stop_tokens=None) == generator.generate("the ")
    for call in (generator.generate, lambda p, **o: list(generator.generate_many([p], **o))):
        with pytest.raises(UsageError) as caught:
            call("the ", max_new_tokens=None)
        assert caught.value.argument == "max_new_tokens"
    assert generator.generate("the ", max_new_tokens=None, stop="e").finish_reason == "stop"


def test_what_is_wrong_is_refused_before_the_first_piece_is_asked_for(generator):
    """So that a server knows it while there is still a status code to send."""
    for begin in (generator.stream, lambda *a, **o: asyncio.run(generator.astream(*a, **o))):
        with pytest.raises(UsageError, match="temperature"):
            begin("the ", temperature=-1)
        with pytest.raises(PromptError):
            begin("é")
    with pytest.raises(PromptError, match=r"prompts\[1\].*é") as caught:
        generator.generate_many(["the ", "é"])
    assert caught.value.argument == "prompt"
