"""What ends a text: stop texts, stop tokens, time, length, and who cancels it."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st


def cut(text, stops, last, after):
    """What is left of a text, and whether a stop ended it: at the first moment when a stop stands
    whole in what came after the first `after` characters, up to the earliest that does, or with one
    of the characters `last`. One token is one character.
    """
    for end in range(after + 1, len(text) + 1):
        places = [place for stop in stops if (place := text[:end].find(stop, after)) >= 0]
        if places or text[end - 1] in last:
            return text[: min(places, default=end)], True
    return text, False


@given(data=st.data())
def test_stop_texts_and_tokens_end_it_but_not_before_its_time(generator, data):
    length = 60
    least = data.draw(st.sampled_from([0, 0, 10, length]))
    tokens = data.draw(st.lists(st.integers(1, generator.tokenizer.vocab_size - 1), max_size=8))
    stopping = {"stop_tokens": tokens, "min_new_tokens": least}
    begun = generator.generate("the ", max_new_tokens=least, seed=1, keep_state=True, **stopping)
    rest = generator.generate(state=begun.state, max_new_tokens=length - least)
    whole = begun.text + rest.text
    pieces = st.tuples(st.integers(0, length - 1), st.integers(1, 6)).map(
        lambda p: whole[p[0] : p[0] + p[1]]
    )
    other = st.text(alphabet="the clock", min_size=1, max_size=3)
    stops = tuple(data.draw(st.lists(pieces | other, min_size=1, max_size=30)))
    arguments = {"max_new_tokens": length, "seed": 1, "stop": stops, **stopping}
    expected, stopped = cut(whole, stops, generator.tokenizer.decode(np.array(tokens, int)), least)
    made = generator.generate("the ", **arguments)
    assert made.text == expected
    assert made.finish_reason == ("stop" if stopped else "length")
    assert whole.startswith(generator.tokenizer.decode(np.array(made.tokens)))
    shown = ""
    for piece in generator.stream("the ", **arguments):
        shown += piece
        assert expected.startswith(shown), "a stop text was shown in part"
    assert shown == expected
    assert list(generator.generate_many(["the "], **arguments)) == [made]


def test_no_stop_token_comes_before_its_time(generator):
    stops = set(generator.prepare("the ").ids.tolist())
    for seed in range(5):
        made = generator.generate(
            "the ", seed=seed, stop_tokens=list(stops), min_new_tokens=20, max_new_tokens=300
        )
        assert not set(made.tokens[:-1]) & stops
        assert len(made.tokens) > 20
        assert (made.tokens[-1] in stops, made.finish_reason) == (True, "stop")


def test_a_function_cancels_many(generator):
    asked = itertools.count()
    options = {"max_new_tokens": None, "cancelled": lambda: next(asked) > 20}
    made, _ = generator.generate_many(["the ", ""], **options)
    assert made.finish_reason == "cancelled"
    assert made.text == generator.generate("the ", max_new_tokens=len(made.tokens)).text


@pytest.mark.parametrize("calls", [1, 3])
def test_what_cancelled_raises_is_blamed_on_no_component_and_harms_no_other(generator, calls):
    left = itertools.count(1 - calls)
    request = {"prompt": "a", "keep_state": True, "cancelled": lambda: 1 / next(left) > 1}
    texts = generator.generate_many(["the ", request], max_new_tokens=20)
    assert next(texts).text == generator.generate("the ", max_new_tokens=20).text
    with pytest.raises(ZeroDivisionError) as caught:
        next(texts)
    assert not hasattr(caught.value, "__notes__")
