"""A prompt that ends with a space, where tokens are words with the space before them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textgen

TEXT = "the clock struck nine and the mouse ran down; the cat saw the clock and sat still. "


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("spaces")
    (folder / "text.txt").write_text(TEXT * 40, encoding="utf-8")
    tables = {
        "corpus": {"type": "file", "path": str(folder / "text.txt")},
        "tokenizer": {"type": "bpe", "vocab_size": 300},
        "data": {"window_length": 8},
        "model": {"type": "ngram", "order": 3},
        "trainer": {"type": "count"},
        "sampler": [{"type": "greedy"}],
        "observer": [],
    }
    with textgen.load(textgen.run(tables, output=Path(folder, "run")).path) as generator:
        yield generator


def test_a_text_goes_on_as_if_the_space_were_not_there_yet(generator: Any) -> None:
    without = generator.generate("the mouse", max_new_tokens=12)
    assert without.text.startswith(" ran down; the c")
    made = generator.generate("the mouse ", max_new_tokens=12)
    assert " " + made.text == without.text
    assert made.tokens == without.tokens
    echoed = generator.generate("the mouse ", max_new_tokens=12, echo=True)
    assert echoed.text == "the mouse" + without.text


def test_all_ways_give_the_same_text(generator: Any) -> None:
    expected = generator.generate("saw the ", max_new_tokens=9).text
    assert expected.startswith("clock")
    prompt = generator.prepare("saw the ")
    many = generator.generate_many(["saw the ", "the mouse", prompt], max_new_tokens=9)
    assert [made.text for made in many][::2] == [expected] * 2
    assert "".join(generator.stream("saw the ", max_new_tokens=9)) == expected
    assert asyncio.run(generator.agenerate("saw the ", max_new_tokens=9)).text == expected
    state = generator.generate("the cat ", max_new_tokens=1, keep_state=True).state
    assert generator.generate(" the ", max_new_tokens=9, state=state).text == expected
    stopped = generator.generate("the cat ", max_new_tokens=9, stop=" the")
    assert (stopped.text, stopped.finish_reason) == ("saw", "stop")


def test_what_may_follow_begins_after_the_space(generator: Any) -> None:
    likely = list(generator.probabilities("the mouse "))
    assert likely[0] in ("ran", "r")
    model, sampled = generator.next_logprobs("the mouse ")
    texts = [generator.tokenizer.decode(np.array([token])) for token in range(len(model))]
    assert all(text.startswith(" ") == np.isfinite(p) for text, p in zip(texts, model, strict=True))
    assert texts[int(sampled.argmax())].strip() == likely[0]


def test_the_space_is_fed_where_the_tokens_are_asked_for_or_a_form_rules(generator: Any) -> None:
    scored = generator.generate("the mouse ", max_new_tokens=3, echo=True, logprobs=0)
    ids = [*generator.encode_prompt("the mouse "), *scored.tokens]
    assert [each.token for each in scored.logprobs] == ids
    made = generator.generate("the mouse ", regex="(ran|sat)")
    assert made.text in ("ran", "sat")
