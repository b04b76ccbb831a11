"""Generation from a finished run: prompts, seeds, streams and scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textgen import Generator, PromptError, UsageError, load


@pytest.fixture(scope="module")
def generator(finished_run: Path) -> Generator:
    return load(finished_run)


def test_a_prompt_outside_the_vocabulary_is_an_error_that_lists_it(generator: Generator) -> None:
    with pytest.raises(PromptError) as caught:
        generator.generate("thé 😀 é\0")
    assert caught.value.characters == ("é", "😀", "\0")
    for part in ("'é' (U+00E9)", "U+1F600", "U+0000", "skip", "unknown"):
        assert part in str(caught.value)


def test_the_policy_skip_continues_what_is_left(generator: Generator) -> None:
    skipped = generator.generate("thé 😀clock", unknown_characters="skip")
    assert skipped.tokens == generator.generate("th clock").tokens
    assert str(skipped).startswith("thé 😀clock")
    assert generator.generate("éé", unknown_characters="skip").tokens == generator.generate("").tokens


def test_the_policy_unknown_feeds_the_unknown_token(generator: Generator) -> None:
    ids = generator.encode_prompt("thé", "unknown")
    assert ids[-1] == generator.tokenizer.unknown_id
    assert generator.generate("thé", unknown_characters="unknown").tokens == (
        generator.generate("th\0", unknown_characters="unknown").tokens
    )


def test_the_command_refuses_such_a_prompt_in_one_line(
    textgen: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    failed = textgen("generate", finished_run, "--prompt", "é", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, "")
    assert len(failed.stderr.splitlines()) == 1
    assert "U+00E9" in failed.stderr
    done = textgen("generate", finished_run, "-p", "é", "--unknown-characters", "skip", "--no-echo", cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == load(finished_run).generate().text + "\n"


def test_an_empty_prompt_starts_from_the_start_state(generator: Generator) -> None:
    generation = generator.generate("", max_new_tokens=25)
    assert len(generation.tokens) == len(generation.text) == 25
    assert str(generation) == generation.text
    assert generation.tokens == generator.generate(max_new_tokens=25).tokens


def test_no_new_tokens_are_no_text(generator: Generator) -> None:
    assert str(generator.generate("the", max_new_tokens=0)) == "the"
    assert list(generator.stream("the", max_new_tokens=0)) == []


def test_a_seed_and_an_index_fix_the_text(generator: Generator) -> None:
    text = generator.generate("the ", seed=5).text
    assert generator.generate("the ", seed=5).text == text
    assert generator.generate("the ", seed=6).text != text
    assert generator.generate("the ", seed=5, index=1).text != text
    assert generator.generate("the ").text == generator.generate("the ", seed=7).text  # the run's own seed


def test_a_shorter_text_is_the_beginning_of_a_longer_one(generator: Generator) -> None:
    longer = generator.generate("the ", max_new_tokens=300).text
    assert longer.startswith(generator.generate("the ", max_new_tokens=40).text)


def test_a_stream_gives_the_same_text_in_pieces(generator: Generator) -> None:
    pieces = list(generator.stream("the ", max_new_tokens=50, seed=3))
    assert len(pieces) > 1
    assert "".join(pieces) == generator.generate("the ", max_new_tokens=50, seed=3).text


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


def test_a_greedy_chain_takes_the_most_likely_token(finished_run: Path) -> None:
    greedy = load(finished_run, sampler=[{"type": "greedy"}])
    tokens = greedy.generate("the ", max_new_tokens=30, seed=1).tokens
    assert tokens == greedy.generate("the ", max_new_tokens=30, seed=2).tokens
    decoder = greedy.model.decoder(1)
    logits = decoder.extend(greedy.encode_prompt("the ")[None])
    for token in tokens:
        assert token == int(np.argmax(logits))
        logits = decoder.extend(np.array([[token]]))


def test_temperature_zero_is_greedy(finished_run: Path) -> None:
    frozen = load(finished_run, sampler=[{"type": "temperature", "temperature": 0}])
    greedy = load(finished_run, sampler=[{"type": "greedy"}])
    assert frozen.generate("the ").text == greedy.generate("the ").text


def test_a_score_is_the_mean_loss_of_each_token_given_those_before(generator: Generator) -> None:
    text = "the clock struck"
    ids = generator.encode_prompt(text)
    decoder = generator.model.decoder(1)
    losses = []
    for before, after in itertools.pairwise(ids.tolist()):
        logits = np.asarray(decoder.extend(np.array([[before]])), np.float64)[0]
        losses.append(np.log(np.exp(logits).sum()) - logits[after])
    score = generator.score(text)
    assert (score.tokens, score.characters, score.unknown_tokens) == (15, 15, 0)
    assert score.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.bits_per_character == pytest.approx(score.loss / math.log(2))


def test_a_score_does_not_depend_on_the_pieces(generator: Generator) -> None:
    text = "the hour of the clock " * 500
    pieces = [text[i : i + 37] for i in range(0, len(text), 37)]
    whole, cut = generator.score(text), generator.score(pieces)
    assert whole.tokens == cut.tokens == len(text) - 1
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)


def test_a_score_counts_what_the_vocabulary_lacks(generator: Generator) -> None:
    assert generator.score("the é clock é").unknown_tokens == 2


@pytest.mark.parametrize("text", ["", "t"])
def test_there_must_be_something_to_score(generator: Generator, text: str) -> None:
    with pytest.raises(UsageError, match="less than two tokens"):
        generator.score(text)
