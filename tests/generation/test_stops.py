"""What ends a text: stop texts, stop tokens, time, length, and who cancels it."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st


def cut(text, stops, after=0):
    """What is left of a text, and whether a stop ended it: at the first moment when a stop stands
    whole in what came after the first `after` characters, up to the earliest that does. One token
    is one character.
    """
    for end in range(after, len(text) + 1):
        places = [place for stop in stops if (place := text[:end].find(stop, after)) >= 0]
        if places:
            return text[: min(places)], True
    return text, False


@given(data=st.data())
def test_a_stop_text_ends_it_wherever_token_borders_lie(generator, data):
    length = 60
    whole = generator.generate("the ", max_new_tokens=length, seed=1).text
    pieces = st.tuples(st.integers(0, length - 1), st.integers(1, 6)).map(
        lambda p: whole[p[0] : p[0] + p[1]]
    )
    other = st.text(alphabet="the clock", min_size=1, max_size=3)
    stops = tuple(data.draw(st.lists(pieces | other, min_size=1, max_size=30)))
    least = data.draw(st.sampled_from([0, 0, 10, length]))
    arguments = {"max_new_tokens": length, "seed": 1, "stop": stops, "min_new_tokens": least}
    expected, stopped = cut(whole, stops, least)
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


def test_a_stop_token_ends_it_and_is_kept_but_not_before_its_time(generator):
    whole = generator.generate("the ", max_new_tokens=200, seed=2)
    made = generator.generate("the ", max_new_tokens=200, seed=2, stop_tokens=[whole.tokens[9]])
    first = whole.tokens.index(whole.tokens[9])
    assert (made.tokens, made.finish_reason) == (whole.tokens[: first + 1], "stop")
    both = {"stop_tokens": [whole.tokens[9]], "stop": ["no such text"]}
    assert generator.generate("the ", max_new_tokens=200, seed=2, **both).text == made.text
    stops = set(generator.prepare("the ").ids.tolist())
    for seed in range(5):
        made = generator.generate(
            "the ", seed=seed, stop_tokens=list(stops), min_new_tokens=20, max_new_tokens=300
        )
        assert not set(made.tokens[:-1]) & stops
        assert len(made.tokens) > 20
        assert (made.tokens[-1] in stops, made.finish_reason) == (True, "stop")


@pytest.mark.parametrize("limit", [0, 0.05])
def test_a_time_limit_ends_what_would_not_end(generator, limit):
    made = generator.generate("the ", max_new_tokens=None, time_limit=limit)
    assert (made.finish_reason, bool(made.tokens)) == ("time", limit > 0)


def test_a_function_cancels_many(generator):
    asked = itertools.count()
    options = {"max_new_tokens": None, "cancelled": lambda: next(asked) > 20}
    made, _ = generator.generate_many(["the ", ""], **options)
    assert made.finish_reason == "cancelled"
    assert made.text == generator.generate("the ", max_new_tokens=len(made.tokens)).text


def test_another_thread_cancels_a_stream_at_once(generator):
    event = threading.Event()
    stream = generator.stream("the ", max_new_tokens=None, cancelled=event.is_set)
    assert len(list(itertools.islice(stream, 100))) == 100
    event.set()
    assert list(stream) == []


@pytest.mark.parametrize("calls", [1, 3])
def test_what_cancelled_raises_is_blamed_on_no_component_and_harms_no_other(generator, calls):
    left = itertools.count(1 - calls)
    request = {"prompt": "a", "keep_state": True, "cancelled": lambda: 1 / next(left) > 1}
    texts = generator.generate_many(["the ", request], max_new_tokens=20)
    assert next(texts).text == generator.generate("the ", max_new_tokens=20).text
    with pytest.raises(ZeroDivisionError) as caught:
        next(texts)
    assert not hasattr(caught.value, "__notes__")
