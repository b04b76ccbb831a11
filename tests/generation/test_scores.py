"""How likely a given text, a prompt and generated tokens are."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from textgen import PromptError, UsageError


def rows_of(generator, text):
    """(T, V) log-probabilities at each token of a text, by the decoder itself."""
    decoder = generator.model.decoder(1)
    decoder.extend(np.array(generator.record["priming"])[None, :-1])
    ids = np.array([generator.record["priming"][-1], *generator.prepare(text).ids[:-1]])
    rows = [np.array(decoder.extend(ids[None, i : i + 1]), np.float64)[0] for i in range(len(ids))]
    return np.stack([row - np.log(np.exp(row).sum()) for row in rows])


def logprobs(generator, text, **options):
    blocks = generator.score_tokens(text, **options)
    return np.concatenate([block.logprobs for block in blocks])


def test_a_score_is_the_mean_loss_of_each_token_given_those_before(generator):
    text = "the clock struck"
    ids = generator.prepare(text).ids
    expected = rows_of(generator, text)[np.arange(16), ids]
    assert logprobs(generator, text) == pytest.approx(expected, abs=1e-5)
    score = generator.score(text)
    assert (score.tokens, score.characters, score.unknown_tokens) == (16, 16, 0)
    assert score.loss == pytest.approx(-expected.mean(), abs=1e-5)
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.bits_per_character == pytest.approx(score.loss / math.log(2))


def test_a_score_does_not_depend_on_blocks_and_pieces(generator):
    text = "the hour of the clock " * 500
    pieces = [text[i : i + 37] for i in range(0, len(text), 37)]
    blocks = list(generator.score_tokens(text))
    assert len(blocks) > 1
    tokens = np.concatenate([block.tokens for block in blocks])
    assert np.array_equal(tokens, generator.prepare(text).ids)
    whole, cut = generator.score(text), generator.score(iter(pieces))
    assert whole.tokens == cut.tokens == len(text)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    assert whole.loss == pytest.approx(-logprobs(generator, text).mean())


def test_a_score_counts_what_the_vocabulary_lacks(generator):
    assert generator.score(iter(["the é clock é"])).unknown_tokens == 2
    with pytest.raises(PromptError, match="é"):
        generator.score("the é clock é")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (["the clock", "the hour"], "text: expected a string, or an iterator"),
        ("", "nothing to score"),
    ],
)
def test_there_must_be_one_text_to_score(generator, text, said):
    with pytest.raises(UsageError, match=said):
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


def test_logprobs_are_those_of_the_model_before_any_sampler(generator):
    made = generator.generate("the ", max_new_tokens=20, logprobs=3, top_k=2, temperature=0.5)
    plain = generator.generate("the ", max_new_tokens=20, top_k=2, temperature=0.5)
    assert made.tokens == plain.tokens
    rows = rows_of(generator, str(made))[4:]
    for token, entry, row in zip(made.tokens, made.logprobs, rows, strict=False):
        assert (entry.token, entry.logprob) == (token, pytest.approx(row[token], abs=1e-6))
        assert [t for t, _ in entry.top] == np.argsort(-row, kind="stable")[:3].tolist()
        assert [p for _, p in entry.top] == pytest.approx(sorted(row, reverse=True)[:3], abs=1e-6)


def test_with_echo_prompt_and_logprobs_of_the_prompt_come_first(generator):
    prompt = "the clock"
    plain = generator.generate(prompt, max_new_tokens=10, logprobs=0)
    echoed = generator.generate(prompt, max_new_tokens=10, logprobs=0, echo=True)
    assert echoed.text == str(echoed) == str(plain) == prompt + plain.text
    tokens = [entry.token for entry in echoed.logprobs]
    assert tokens == [*generator.prepare(prompt).ids, *plain.tokens]
    assert echoed.logprobs[len(prompt) :] == plain.logprobs
    given = [entry.logprob for entry in echoed.logprobs[: len(prompt)]]
    assert given == pytest.approx(list(logprobs(generator, prompt)), abs=1e-6)
    ids = generator.generate(generator.prepare(prompt).ids, max_new_tokens=0, logprobs=0, echo=True)
    assert ids.logprobs[0].logprob is None  # nothing stands before it
    assert next(generator.stream(prompt, max_new_tokens=2, echo=True)) == prompt
