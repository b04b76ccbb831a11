"""Saved states: at a stop, with another prompt, another seed, another model, and damaged."""

import pytest
from raising import raises

from textgen import CorruptFileError, GenerationState, RunError, UsageError, run


def saved(state, folder):
    """The file of a state."""
    state.save(folder / "state")
    return (folder / "state").read_bytes()


def test_a_stop_text_is_found_across_a_saved_state(generator):
    """The part of it that was shown stays, and the text ends where it would have ended."""
    whole = generator.generate("the ", max_new_tokens=80).text
    stop, begin = whole[43:47], whole.index(whole[43:47])
    for cut in range(begin + 1, begin + 4):
        stops = ["zzz", stop]
        first = generator.generate("the ", max_new_tokens=cut, stop=stops, keep_state=True)
        assert first.text == whole[:cut]
        state = first.state
        for _ in range(2):  # nothing generated leaves it as it was
            state = generator.generate(
                state=state, max_new_tokens=0, stop=stops, keep_state=True
            ).state
        rest = generator.generate(state=state, max_new_tokens=30, stop=stops)
        assert (rest.text, rest.finish_reason) == ("", "stop")
        assert len(generator.generate(state=state, max_new_tokens=9, stop=None).tokens) == 9


def test_an_endless_stream_is_cancelled_and_resumed(generator):
    options = {"repetition_penalty": 1.3, "stop": ["the time machine"]}
    stream = generator.stream("the ", max_new_tokens=None, keep_state=True, **options)
    assert stream.state is None
    text = ""
    for piece in stream:
        text += piece
        if len(text) > 40:
            stream.cancel()
    assert stream.finish_reason == "cancelled"
    rest = generator.generate(max_new_tokens=50, state=stream.state, **options).text
    whole = generator.generate("the ", max_new_tokens=len(text) + 50, **options).text
    assert text + rest == whole


@pytest.mark.parametrize("at", range(0, 60, 14))
def test_a_state_at_a_stop_is_that_of_the_text_before(lively, tmp_path, at):
    """A greedy decoder runs ahead of the text; what it made beyond the stop must leave no trace."""
    options = {"temperature": 0, "keep_state": True}
    whole = lively.generate("the ", max_new_tokens=120, temperature=0)
    stop = whole.tokens[at]
    end = whole.tokens.index(stop) + 1
    exact = lively.generate("the ", max_new_tokens=end, **options)
    for stops in ({"stop_tokens": [stop]}, {"stop": whole.text[:end]}):
        made = lively.generate("the ", max_new_tokens=120, **options, **stops)
        assert (made.tokens, made.finish_reason) == (whole.tokens[:end], "stop")
        assert saved(made.state, tmp_path) == saved(exact.state, tmp_path)


def test_a_prompt_is_added_to_a_state(generator):
    options = {"temperature": 0, "repetition_penalty": 1.2}
    asked = {"max_new_tokens": 30, "echo": True, "logprobs": 1, **options}
    for before in (0, 5):
        first = generator.generate("the ", max_new_tokens=before, keep_state=True, **options)
        added = generator.generate("clock", state=first.state, **asked)
        whole = generator.generate(f"{first}clock", **asked)
        assert added.tokens == whole.tokens
        assert added.logprobs == whole.logprobs[4 + before :]


def test_a_sampler_that_reads_the_history_sees_it_from_where_it_joins(generator):
    plain = generator.generate("the ", max_new_tokens=10, keep_state=True)
    rest = generator.generate(state=plain.state, max_new_tokens=5, presence_penalty=99)
    assert len(set(rest.tokens)) == 5


def test_a_state_keeps_seed_and_index_where_none_are_given(generator):
    first = generator.generate("the ", seed=9, index=4, max_new_tokens=20, keep_state=True)
    rest = generator.generate(state=first.state, max_new_tokens=50)
    assert (rest.seed, rest.index) == (9, 4)
    for changed in ({"seed": 10}, {"index": 3}):
        other = generator.generate(state=first.state, max_new_tokens=50, **changed)
        assert {"seed": other.seed, "index": other.index} == {"seed": 9, "index": 4, **changed}
        assert other.text != rest.text
    many = generator.generate_many([{"prompt": ""}] * 2, state=first.state, index=7)
    assert [each.index for each in many] == [7, 8]


def test_only_a_state_of_the_same_model_is_resumed(generator, tiny_pipeline):
    other = run(tiny_pipeline(seed=8)).generator
    state = other.generate("the ", max_new_tokens=5, keep_state=True).state
    for begin in (generator.generate, generator.stream):
        for wrong in (state, "state.safetensors"):
            with pytest.raises(UsageError) as caught:
                begin(state=wrong)
            assert caught.value.argument == "state"


def test_a_damaged_state_is_an_error_that_names_the_file(generator, tmp_path):
    made = generator.generate("the ", max_new_tokens=5, keep_state=True, repetition_penalty=1.1)
    good, path = saved(made.state, tmp_path), tmp_path / "state"
    flips = [good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :] for at in range(0, len(good), 19)]
    cuts = [good[:size] for size in (0, 1, 8, 100, len(good) - 1)]
    weights = (generator.path / "model.safetensors").read_bytes()
    for bad in [*flips, *cuts, good + b"\0", weights]:
        path.write_bytes(bad)
        with raises(CorruptFileError, path=path):
            GenerationState.load(path)
    with raises(RunError, path=tmp_path / "missing"):
        GenerationState.load(tmp_path / "missing")
    with raises(RunError, path=tmp_path / "missing/state"):
        made.state.save(tmp_path / "missing/state")
