"""The likelihood of a given text: its mean, and token by token."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from textgen import (
    Generator,
    PromptError,
    UsageError,
)


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
    whole, cut = generator.score(text), generator.score(iter(pieces))
    assert whole.tokens == cut.tokens == len(text) - 1
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)


def test_a_score_counts_what_the_vocabulary_lacks(generator: Generator) -> None:
    assert generator.score(iter(["the é clock é"])).unknown_tokens == 2
    with pytest.raises(PromptError, match="é"):
        generator.score("the é clock é")


def test_a_text_is_scored_after_a_prompt(generator: Generator) -> None:
    whole = np.concatenate([each.logprobs for each in generator.score_tokens("the clock struck")])
    after = list(generator.score_tokens("struck", prompt="the clock "))
    assert np.concatenate([each.logprobs for each in after]) == pytest.approx(whole[10:], abs=1e-6)
    score = generator.score("struck", prompt="the clock ")
    assert (score.tokens, score.characters) == (6, 6)
    assert score.loss == pytest.approx(-whole[10:].mean(), abs=1e-6)


def test_a_list_of_texts_is_not_taken_for_one(generator: Generator) -> None:
    with pytest.raises(UsageError, match="text: expected a string, or an iterator") as caught:
        generator.score(["the clock", "the hour"])  # type: ignore[arg-type]
    assert caught.value.argument == "text"


@pytest.mark.parametrize("text", ["", "t"])
def test_there_must_be_something_to_score(generator: Generator, text: str) -> None:
    with pytest.raises(UsageError, match="fewer than two tokens"):
        generator.score(text)


def test_token_scores_say_which_token_is_how_likely(generator: Generator) -> None:
    text = "the hour " * 1000
    blocks = list(generator.score_tokens(text))
    assert len(blocks) > 1
    tokens = np.concatenate([block.tokens for block in blocks])
    logprobs = np.concatenate([block.logprobs for block in blocks])
    assert np.array_equal(tokens, generator.encode_prompt(text))
    assert np.isnan(logprobs[0])
    assert -logprobs[1:].mean() == pytest.approx(generator.score(text).loss)


@pytest.mark.slow
def test_a_long_text_is_scored_in_bounded_memory(generator: Generator) -> None:
    def peak(characters: int) -> int:
        piece = "the time traveller smiled, and the clock struck. " * 100
        tracemalloc.start()
        try:
            generator.score(itertools.repeat(piece, characters // len(piece)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(400_000) < peak(100_000) + 100_000
