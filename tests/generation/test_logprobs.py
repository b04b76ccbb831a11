"""Log-probabilities of generated tokens and of the prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from textgen import (
    Generator,
    UsageError,
)


def test_logprobs_are_those_of_the_model_before_any_sampler(generator: Generator) -> None:
    made = generator.generate("the ", max_new_tokens=20, logprobs=3, top_k=2, temperature=0.5)
    assert made.logprobs is not None
    decoder = generator.model.decoder(1)
    logits = decoder.extend(generator.encode_prompt("the ")[None])
    for token, entry in zip(made.tokens, made.logprobs, strict=True):
        row = np.asarray(logits, np.float64)[0]
        row = row - np.log(np.exp(row).sum())
        assert entry.token == token
        assert entry.logprob == pytest.approx(row[token], abs=1e-6)
        assert [t for t, _ in entry.top] == np.argsort(-row, kind="stable")[:3].tolist()
        assert [p for _, p in entry.top] == pytest.approx(sorted(row, reverse=True)[:3], abs=1e-6)
        logits = decoder.extend(np.array([[token]]))
    assert (
        made.tokens
        == generator.generate("the ", max_new_tokens=20, top_k=2, temperature=0.5).tokens
    )


def test_with_echo_prompt_and_logprobs_of_the_prompt_come_first(generator: Generator) -> None:
    prompt = "the clock"
    plain = generator.generate(prompt, max_new_tokens=10, logprobs=0)
    echoed = generator.generate(prompt, max_new_tokens=10, logprobs=0, echo=True)
    assert echoed.text == str(echoed) == str(plain) == prompt + plain.text
    assert plain.logprobs is not None
    assert echoed.logprobs is not None
    assert [entry.token for entry in echoed.logprobs] == [
        *generator.encode_prompt(prompt),
        *plain.tokens,
    ]
    assert echoed.logprobs[len(prompt) :] == plain.logprobs
    scores = np.concatenate([block.logprobs for block in generator.score_tokens(prompt)])
    assert echoed.logprobs[0].logprob is None  # as in scores: nothing predicts it
    assert [entry.logprob for entry in echoed.logprobs[1 : len(prompt)]] == pytest.approx(
        list(scores[1:]), abs=1e-6
    )
    assert next(iter(generator.stream(prompt, max_new_tokens=2, echo=True))) == prompt


def test_those_of_a_prompt_follow_its_state_for_one_and_for_many(generator: Generator) -> None:
    first = generator.generate("the ", max_new_tokens=5, keep_state=True)
    whole = generator.generate(f"{first}clock", max_new_tokens=1, logprobs=1, echo=True)
    request = {
        "prompt": "clock",
        "state": first.state,
        "max_new_tokens": 1,
        "logprobs": 1,
        "echo": True,
    }
    alone = generator.generate("clock", state=first.state, max_new_tokens=1, logprobs=1, echo=True)
    for made in (alone, next(iter(generator.generate_many([request, "the "])))):
        expected = [entry.logprob for entry in whole.logprobs[-6:-1]]
        assert [entry.logprob for entry in made.logprobs[:5]] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [-1, 1.0, True])
def test_logprobs_are_a_number(generator: Generator, value: Any) -> None:
    with pytest.raises(UsageError, match="logprobs"):
        generator.generate("the ", logprobs=value)
