"""Text of a finished run: what seed, index and sampling options make of it, whichever way it is asked for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen import (
    Generator,
    UsageError,
    load,
)


def test_a_seed_and_an_index_fix_the_text(generator: Generator) -> None:
    text = generator.generate("the ", seed=5).text
    assert generator.generate("the ", seed=5).text == text
    assert generator.generate("the ", seed=6).text != text
    assert generator.generate("the ", seed=5, index=1).text != text
    assert (
        generator.generate("the ").text == generator.generate("the ", seed=7).text
    )  # the run's own seed


def test_a_shorter_text_is_the_beginning_of_a_longer_one(generator: Generator) -> None:
    longer = generator.generate("the ", max_new_tokens=300).text
    assert longer.startswith(generator.generate("the ", max_new_tokens=40).text)


def test_a_stream_gives_the_same_text_in_pieces(generator: Generator) -> None:
    pieces = list(generator.stream("the ", max_new_tokens=50, seed=3))
    assert len(pieces) > 1
    assert "".join(pieces) == generator.generate("the ", max_new_tokens=50, seed=3).text


def test_a_greedy_chain_takes_the_most_likely_token(finished_run: Path) -> None:
    greedy = load(finished_run, sampler=[{"type": "greedy"}])
    tokens = greedy.generate("the ", max_new_tokens=30, seed=1).tokens
    assert tokens == greedy.generate("the ", max_new_tokens=30, seed=2).tokens
    decoder = greedy.model.decoder(1)
    logits = decoder.extend(greedy.encode_prompt("the ")[None])
    for token in tokens:
        assert token == int(np.argmax(logits))
        logits = decoder.extend(np.array([[token]]))


@pytest.mark.fault(31)
def test_temperature_zero_is_greedy(finished_run: Path) -> None:
    frozen = load(finished_run, sampler=[{"type": "temperature", "temperature": 0}])
    greedy = load(finished_run, sampler=[{"type": "greedy"}])
    assert frozen.generate("the ").text == greedy.generate("the ").text


@given(
    options=st.fixed_dictionaries(
        {"seed": st.integers(0, 2**64 - 1), "max_new_tokens": st.integers(0, 80)},
        optional={
            "temperature": st.sampled_from([0, 0.5, 1.0, 3.0]),
            "top_k": st.integers(0, 30),
            "top_p": st.floats(0.1, 1),
            "min_p": st.floats(0, 0.5),
            "typical_p": st.floats(0.1, 1),
            "repetition_penalty": st.sampled_from([0.8, 1.0, 1.5]),
            "presence_penalty": st.sampled_from([-0.5, 0.7]),
            "frequency_penalty": st.sampled_from([-0.1, 0.3]),
            "no_repeat_ngram": st.integers(3, 6),
            "logit_bias": st.sampled_from([{"e": 2.0}, {"t": -50.0, " ": 1.0}]),
            "min_new_tokens": st.integers(0, 20),
            "stop": st.sampled_from(["e", ["th", "the"], []]),
            "stop_tokens": st.sampled_from([[3], [4, 5], []]),
            "echo": st.booleans(),
        },
    ),
    prompt=st.sampled_from(["", "t", "the time traveller smiled"]),
    index=st.integers(0, 3),
)
def test_all_ways_give_the_same_text(
    generator: Generator, options: dict[str, Any], prompt: str, index: int
) -> None:
    alone = generator.generate(prompt, index=index, **options)
    assert "".join(generator.stream(prompt, index=index, **options)) == alone.text
    assert list(generator.generate_many([prompt], n=index + 1, **options))[index] == alone
    assert len(alone.tokens) <= options["max_new_tokens"]


def test_numbers_may_be_those_of_numpy(generator: Generator) -> None:
    plain = generator.generate(
        "the ", seed=3, index=2, max_new_tokens=50, top_k=5, temperature=0.5, stop_tokens=[3, 4]
    )
    stops = generator.encode_prompt(generator.tokenizer.decode(np.array([3, 4])))
    made = generator.generate(
        "the ",
        seed=np.uint64(3),  # type: ignore[arg-type]
        index=np.int64(2),  # type: ignore[arg-type]
        max_new_tokens=np.int32(50),  # type: ignore[arg-type]
        top_k=np.int8(5),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        stop_tokens=stops,
    )
    assert made == plain
    assert type(made.index) is type(made.seed) is int
    with pytest.raises(UsageError, match="max_new_tokens"):
        generator.generate("the ", max_new_tokens=np.float64(5.0))  # type: ignore[arg-type]


def test_weights_that_change_on_disk_change_nothing_that_is_loaded(
    finished_run: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(finished_run, tmp_path / "run") / "model.safetensors"
    made = load(path.parent)
    text, score = made.generate("the ").text, made.score("the clock")
    for size, data in ((100, b""), (0, b"\xff" * path.stat().st_size)):
        os.truncate(path, size)
        with path.open("r+b") as file:
            file.write(data)
        assert made.generate("the ").text == text
        assert made.score("the clock") == score


def test_the_unknown_token_is_never_generated(generator: Generator) -> None:
    made = generator.generate(
        "the ", max_new_tokens=5000, temperature=100.0
    )  # all tokens are about equally likely
    assert len(set(made.tokens)) == generator.tokenizer.vocab_size - 1
    assert generator.tokenizer.unknown_id not in made.tokens
    many = list(generator.generate_many([""] * 100, max_new_tokens=50, temperature=100.0))
    assert all(generator.tokenizer.unknown_id not in m.tokens for m in many)


def test_a_generator_and_a_state_are_shown_in_a_line_without_their_arrays(
    generator: Generator,
) -> None:
    state = generator.generate("the ", max_new_tokens=3, keep_state=True).state
    assert str(generator.path) in repr(generator)
    assert len(repr(generator)) < 300
    assert "array" not in repr(state)
