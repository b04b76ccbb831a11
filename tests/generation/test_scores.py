"""How likely a given text, a prompt and generated tokens are."""

import asyncio
import itertools
import math
import tracemalloc

import numpy as np
import pytest
from raising import raises
from watching import Watcher, scoring

from textgen import PromptError, UsageError


def test_a_score_is_the_mean_loss_of_each_token_given_those_before(generator):
    """By the decoder itself, a token at a time."""
    text, decoder = "the clock struck", generator.model.decoder(1)
    ids = [*generator.record["priming"], *generator.prepare(text).ids]
    rows = np.concatenate([decoder.extend(np.array([[token]])).copy() for token in ids[:-1]])
    known = rows[np.arange(len(rows)), ids[1:]] - np.log(np.exp(rows).sum(axis=1))
    expected = known[-16:]
    (block,) = generator.score_tokens(text)
    assert block.logprobs == pytest.approx(expected, abs=1e-5)
    score = generator.score(text)
    assert (score.tokens, score.characters, score.unknown_tokens) == (16, 16, 0)
    assert score.loss == pytest.approx(-expected.mean(), abs=1e-5)
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.bits_per_character == pytest.approx(score.loss / math.log(2))


LONG = {"prompt": "the clock " * 1000, "max_new_tokens": 0, "echo": True, "logprobs": 0}


def test_a_score_that_nobody_waits_for_ends_at_the_next_block_and_its_task_then(finished_run):
    watcher = Watcher()
    generator = scoring(finished_run, watcher)

    async def leave():
        task = asyncio.create_task(generator.agenerate(**LONG))
        await asyncio.to_thread(watcher.begun.wait, 60)
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
        is_counted = not task.done()
        watcher.gate.set()
        await asyncio.wait([task], timeout=60)
        return is_counted, task.cancelled(), watcher.calls

    assert asyncio.run(leave()) == (True, True, 1)


def test_cancelled_ends_a_score(finished_run):
    watcher = Watcher()
    watcher.gate.set()
    generator = scoring(finished_run, watcher)
    made = generator.generate(**LONG, cancelled=lambda: watcher.calls == 2)
    assert (watcher.calls, made.finish_reason) == (2, "cancelled")
    whole = generator.generate(**LONG).logprobs
    scored = len([entry for entry in made.logprobs if entry.logprob is not None])
    assert 0 < scored < len(whole) == len(made.logprobs)
    assert made.logprobs[:scored] == whole[:scored]
    assert {entry.logprob for entry in made.logprobs[scored:]} == {None}


def test_a_score_does_not_depend_on_blocks_and_pieces(generator):
    text = "the hour of the clock " * 500
    pieces = [text[i : i + 37] for i in range(0, len(text), 37)]
    blocks = list(generator.score_tokens(text))
    assert len(blocks) > 1
    tokens = np.concatenate([block.tokens for block in blocks])
    assert np.array_equal(tokens, generator.prepare(text).ids)
    whole, cut = generator.score(text), generator.score(pieces)
    assert whole.tokens == cut.tokens == len(text)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    assert whole.loss == pytest.approx(-np.concatenate([block.logprobs for block in blocks]).mean())


def test_a_score_counts_what_the_vocabulary_lacks(generator):
    assert generator.score(iter(["the é clock é"])).unknown_tokens == 2
    with raises(PromptError, argument="text", characters=("é",)) as caught:
        generator.score("the é clock é")
    assert "unknown_characters" not in str(caught.value)


@pytest.mark.parametrize("text", ["", [], [5]])
def test_there_must_be_a_text_to_score(generator, text):
    with pytest.raises(UsageError):
        generator.score(text)


@pytest.mark.slow
def test_a_long_text_is_scored_in_bounded_memory(generator):
    def peak(characters):
        piece = "the time traveller smiled, and the clock struck. " * 100
        tracemalloc.start()
        try:
            generator.score(itertools.repeat(piece, characters // len(piece)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(400_000) < peak(100_000) + 100_000
