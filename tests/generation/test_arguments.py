"""Arguments of generation that are refused, and when."""

import asyncio
import math

import pytest

from textgen import UsageError


def ways(generator):
    """To begin a text.

    What is wrong is said at once, and not with the first piece: a server can still send a status.
    """
    return (
        generator.generate,
        generator.stream,
        lambda prompt, **options: asyncio.run(generator.astream(prompt, **options)),
    )


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
        for begin in ways(generator):
            with pytest.raises(UsageError) as caught:
                begin("the", **{name: value})
            assert (caught.value.argument or "").partition(".")[0] == name


@pytest.mark.parametrize("prompt", [["the"], [0.5], [[1, 2]], [-1], [10**6], 5, None, "é"])
def test_what_is_no_prompt_is_a_usage_error(generator, prompt):
    for begin in ways(generator):
        with pytest.raises(UsageError) as caught:
            begin(prompt)
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
    with pytest.raises(UsageError) as caught:
        generator.generate_many(["the "], **arguments)
    assert meant in caught.value.faults[0].hint


def test_a_name_that_is_no_text_is_refused(generator):
    with pytest.raises(UsageError) as caught:
        generator.generate_many([{"prompt": "the ", 1: 2, "temperature": 0.5}])
    assert caught.value.argument == "1"


def test_none_is_no_stop_and_no_limit(generator):
    assert generator.generate("the ", stop=None, stop_tokens=None) == generator.generate("the ")
    assert generator.generate("the ", max_new_tokens=None, stop="e").finish_reason == "stop"
