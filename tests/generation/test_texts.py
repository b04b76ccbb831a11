"""Text of a finished run: what seed, index and a greedy chain make of it, and what never comes."""

import numpy as np
import pytest

from textgen import load


@pytest.mark.fault(31)
@pytest.mark.parametrize("sampler", [{"type": "greedy"}, {"type": "temperature", "temperature": 0}])
def test_a_greedy_chain_takes_the_most_likely_token(finished_run, sampler):
    greedy = load(finished_run, sampler=[sampler])
    tokens = greedy.generate("the ", max_new_tokens=30, seed=1).tokens
    decoder = greedy.model.decoder(1)
    logits = decoder.extend(greedy.prepare("the ").ids[None])
    for token in tokens:
        assert token == int(np.argmax(logits))
        logits = decoder.extend(np.array([[token]]))


def test_the_unknown_token_is_never_generated(generator):
    # All tokens are about equally likely.
    many = list(generator.generate_many([""] * 100, max_new_tokens=50, temperature=100.0))
    tokens = {token for made in many for token in made.tokens}
    assert len(tokens) == generator.tokenizer.vocab_size - 1
    assert generator.tokenizer.unknown_id not in tokens


def test_a_generator_and_a_state_are_shown_in_a_line_without_their_arrays(generator):
    state = generator.generate("the ", max_new_tokens=3, keep_state=True).state
    assert str(generator.path) in repr(generator)
    assert len(repr(generator)) < 300
    assert "array" not in repr(state)
