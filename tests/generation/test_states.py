"""Texts that are continued exactly: after a save, in another process, at a stop, with another prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgen import (
    CorruptFileError,
    GenerationState,
    Generator,
    RunError,
    UsageError,
    run,
)

STATES = pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"seed": 5},
        {
            "temperature": 0.8,
            "repetition_penalty": 1.3,
            "frequency_penalty": 0.3,
            "presence_penalty": 0.2,
        },
        {"no_repeat_ngram": 3, "temperature": 0.7},
    ],
    ids=["greedy", "sampled", "penalties", "no-repeat"],
)


def saved(state: GenerationState | None, folder: Path) -> bytes:
    """The file of a state."""
    assert state is not None
    state.save(folder / "state")
    return (folder / "state").read_bytes()


@STATES
@pytest.mark.parametrize("at", [0, 1, 37, 64, 65])
def test_a_state_continues_exactly(generator: Generator, options: dict[str, Any], at: int) -> None:
    whole = generator.generate("the ", max_new_tokens=150, index=4, **options)
    first = generator.generate("the ", max_new_tokens=at, index=4, keep_state=True, **options)
    rest = generator.generate(max_new_tokens=150 - at, state=first.state, **options)
    assert first.text + rest.text == whole.text
    streamed = "".join(generator.stream(max_new_tokens=150 - at, state=first.state, **options))
    assert streamed == rest.text, "a state can be used twice"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stop_text_is_found_across_a_saved_state(generator: Generator, streamed: bool) -> None:
    """What was shown of it cannot be taken back, but it ends the text where it would have ended."""
    whole = generator.generate("the ", max_new_tokens=80).text
    for end in (30, 47, 60):
        stop, begin = whole[end - 4 : end], whole.index(whole[end - 4 : end])
        for cut in range(begin + 1, begin + 4):
            stops = ["zzz", stop]
            first = generator.generate("the ", max_new_tokens=cut, stop=stops, keep_state=True)
            assert first.text == whole[:cut]
            state = first.state
            for _ in range(2):  # nothing generated leaves it as it was
                state = generator.generate(
                    state=state, max_new_tokens=0, stop=stops, keep_state=True
                ).state
            if streamed:
                stream = generator.stream(state=state, max_new_tokens=30, stop=stops)
                assert ("".join(stream), stream.finish_reason) == ("", "stop")
            else:
                rest = generator.generate(state=state, max_new_tokens=30, stop=stops)
                assert (rest.text, rest.finish_reason) == ("", "stop")
            assert len(generator.generate(state=state, max_new_tokens=9, stop=None).tokens) == 9
            other = generator.generate(state=state, max_new_tokens=30, stop=stop, min_new_tokens=10)
            assert len(other.tokens) >= 10


@STATES
@pytest.mark.parametrize("at", [0, 1, 37, 64, 65])
def test_the_state_of_a_stream_continues_exactly(
    generator: Generator, tmp_path: Path, options: dict[str, Any], at: int
) -> None:
    whole = generator.generate("the ", max_new_tokens=150, index=4, **options)
    stream = generator.stream("the ", max_new_tokens=at, index=4, keep_state=True, **options)
    assert (stream.finish_reason, stream.state) == (None, None)
    first = "".join(stream)
    assert stream.finish_reason == "length"
    assert (
        first + generator.generate(max_new_tokens=150 - at, state=stream.state, **options).text
        == whole.text
    )
    same = generator.generate("the ", max_new_tokens=at, index=4, keep_state=True, **options).state
    assert saved(stream.state, tmp_path) == saved(same, tmp_path)


@STATES
def test_an_endless_stream_is_cancelled_and_gone_on_with(
    generator: Generator, options: dict[str, Any]
) -> None:
    stream = generator.stream(
        "the ", max_new_tokens=None, keep_state=True, stop=["the time machine"], **options
    )
    text = ""
    for piece in stream:
        text += piece
        if len(text) > 40:
            stream.cancel()
    assert stream.finish_reason == "cancelled"
    rest = generator.generate(max_new_tokens=50, state=stream.state, **options)
    assert (
        text + rest.text
        == generator.generate("the ", max_new_tokens=len(text) + 50, **options).text
    )


@STATES
def test_a_state_continues_in_another_process(
    python: Callable[..., Any],
    generator: Generator,
    finished_run: Path,
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    whole = generator.generate("the ", max_new_tokens=120, **options)
    first = generator.generate("the ", max_new_tokens=50, keep_state=True, **options)
    assert first.state is not None
    first.state.save(tmp_path / "state")
    assert (tmp_path / "state").stat().st_size < 10_000
    script = (
        "import sys, textgen\n"
        "state = textgen.GenerationState.load('state')\n"
        f"made = textgen.load(sys.argv[1]).generate(max_new_tokens=70, state=state, **{options!r})\n"
        "print(made.text, end='')\n"
    )
    done = python("-c", script, finished_run, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert first.text + done.stdout == whole.text


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_a_state_at_a_stop_is_that_of_what_was_shown(
    lively: Generator, tmp_path: Path, at: int
) -> None:
    """A greedy decoder runs ahead of the text; what it made beyond the stop must leave no trace."""
    whole = lively.generate("the ", max_new_tokens=120, temperature=0)
    stop = whole.tokens[at]
    end = whole.tokens.index(stop) + 1
    for arguments in ({"stop_tokens": [stop]}, {"stop": whole.text[:end]}):
        made = lively.generate(
            "the ", max_new_tokens=120, temperature=0, keep_state=True, **arguments
        )
        assert (made.tokens, made.finish_reason) == (whole.tokens[:end], "stop")
        exact = lively.generate("the ", max_new_tokens=end, temperature=0, keep_state=True).state
        assert saved(made.state, tmp_path) == saved(exact, tmp_path)


def test_a_prompt_is_added_to_a_state(generator: Generator) -> None:
    first = generator.generate("the ", max_new_tokens=30, keep_state=True, temperature=0)
    added = generator.generate("clock", max_new_tokens=30, state=first.state, temperature=0)
    assert (
        added.tokens == generator.generate(f"{first}clock", max_new_tokens=30, temperature=0).tokens
    )


def test_a_sampler_that_reads_the_history_sees_it_from_where_it_joins(generator: Generator) -> None:
    plain = generator.generate("the ", max_new_tokens=10, keep_state=True)
    rest = generator.generate(state=plain.state, max_new_tokens=5, no_repeat_ngram=1)
    assert len(set(rest.tokens)) == 5


def test_a_state_keeps_its_seed_and_index_and_takes_another_seed(generator: Generator) -> None:
    first = generator.generate("the ", seed=9, index=4, max_new_tokens=20, keep_state=True)
    rest = generator.generate(state=first.state, max_new_tokens=50)
    assert (rest.seed, rest.index) == (9, 4)
    assert generator.generate(state=first.state, max_new_tokens=50, seed=9, index=4) == rest
    other = generator.generate(state=first.state, max_new_tokens=50, seed=10)
    assert (other.seed, other.index) == (10, 4)
    assert other.text != rest.text
    other = generator.generate(state=first.state, max_new_tokens=50, index=3)
    assert (other.seed, other.index) == (9, 3)
    assert other.text != rest.text
    with pytest.raises(UsageError, match="GenerationState"):
        generator.generate(state="state.safetensors")  # type: ignore[arg-type]


def test_a_prompt_added_to_a_state_has_the_logprobs_of_the_whole(generator: Generator) -> None:
    before = generator.generate("the ", max_new_tokens=0, keep_state=True).state
    added = generator.generate(
        "clock", state=before, max_new_tokens=5, echo=True, logprobs=1
    ).logprobs
    whole = generator.generate("the clock", max_new_tokens=5, echo=True, logprobs=1).logprobs
    assert added is not None
    assert whole is not None
    assert added == whole[4:]


def test_the_state_of_another_model_is_refused(
    generator: Generator, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    other = run(tiny_pipeline(seed=8)).generator
    state = other.generate("the ", max_new_tokens=5, keep_state=True).state
    with pytest.raises(UsageError, match="another model"):
        generator.generate(state=state)
    with pytest.raises(UsageError, match="another model"):
        generator.stream(state=state)


def test_a_damaged_state_is_an_error_that_names_the_file(
    generator: Generator, tmp_path: Path
) -> None:
    state = generator.generate(
        "the ", max_new_tokens=5, keep_state=True, repetition_penalty=1.1
    ).state
    assert state is not None
    path = tmp_path / "state"
    state.save(path)
    good = path.read_bytes()
    flips = [good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :] for at in range(0, len(good), 7)]
    cuts = [good[:size] for size in (0, 1, 8, 100, len(good) - 1)]
    for bad in [*flips, *cuts, b"version https://git-lfs.github.com/spec/v1\n", good + b"\0"]:
        path.write_bytes(bad)
        with pytest.raises(CorruptFileError, match="state"):
            GenerationState.load(path)
    path.write_bytes((generator.path / "model.safetensors").read_bytes())  # type: ignore[operator]
    with pytest.raises(CorruptFileError, match="state"):
        GenerationState.load(path)
    with pytest.raises(RunError, match="cannot be read") as caught:
        GenerationState.load(tmp_path / "missing")
    assert not isinstance(caught.value, CorruptFileError)
    with pytest.raises(RunError, match="missing/state cannot be written: No such file"):
        state.save(tmp_path / "missing/state")
