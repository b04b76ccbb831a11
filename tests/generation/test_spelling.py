"""The ids of a prompt and of its text spell both, whichever way the text is asked for, and each
token has the log-probability by which it is scored.
"""

import asyncio
import itertools
from random import Random

import numpy as np
import pytest
from components import Utf8

import textgen

TEXT = """the clock struck nine and the mouse ran down;  the cat saw the clock and sat still.
    the mouse saw the cat: 😀€
        and ran.

"""
PROMPTS = (
    "",
    " ",
    "the mouse ",
    "the mouse  ",
    "the cat:\n",
    "the cat:\n   ",
    "\n\n ",
    "saw the",
    "a \n ",
)


PARTS = {"model": {"type": "ngram", "order": 3}, "trainer": "count", "data": {"window_length": 8}}
BPE = {"type": "bpe", "vocab_size": 300}


def trained(text, **more):
    return textgen.train(corpus=text, **PARTS, **more).generator


@pytest.fixture(scope="module", params=["char", BPE, Utf8()], ids=["char", "bpe", "bytes"])
def generator(request):
    return trained(TEXT * 40, tokenizer=request.param, sampler=[])


def spelled(generator, *ids):
    return generator.tokenizer.decode(np.concatenate([np.array(each, np.int64) for each in ids]))


def tokens_of(generator):
    """Those of the corpus, once each."""
    return sorted({*generator.tokenizer.encode(TEXT).tolist()})


def drawn(draw, whole, ids):
    """Options, some of which have to do with each other."""
    start = draw.randrange(len(whole))
    every = {
        "stop": [whole[start : start + 3], "zz"],
        "stop_tokens": [draw.choice(ids)],
        "min_new_tokens": draw.randrange(9),
        "logprobs": draw.randrange(3),
        "echo": True,
        "logit_bias": {" ": 2},
        "regex": "[ a-z]{5,9}",
        "strategy": draw.choice(["beam", "sample"]),
    }
    return {name: every[name] for name in draw.sample([*every], draw.randrange(5))}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_spell_prompt_and_text_whatever_is_asked_for(generator, prompt):
    draw = Random(prompt)
    for seed in range(4):
        options = {"max_new_tokens": 14, "seed": seed}
        options |= drawn(draw, generator.generate(prompt, **options).text, tokens_of(generator))
        made = generator.generate(prompt, **options)
        whole = spelled(generator, made.prompt_ids, made.tokens)
        is_cut = "stop" in options and made.finish_reason == "stop"
        assert whole.startswith(str(made)) if is_cut else whole == str(made)
        assert str(made).startswith(prompt)
        given = generator.prepare(prompt, **options)
        assert given.ids.tolist() == made.prompt_ids.tolist()
        if "logprobs" in options:
            fed = made.prompt_ids if "echo" in options else []
            assert [each.token for each in made.logprobs] == [*fed, *made.tokens]
        assert "".join(generator.stream(prompt, **options)) == made.text
        assert asyncio.run(generator.agenerate(prompt, **options)) == made
        requests = ["the ", {"prompt": prompt, "index": 3}, {"prompt": given, "index": 4}]
        _, _, *many = generator.generate_many(requests, n=2, **options)
        alone = [generator.generate(prompt, index=3 + j, **options) for j in (0, 1, 1, 2)]
        assert many == alone


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_state_anywhere_in_it_changes_no_text(generator, prompt):
    draw = Random(prompt)
    for seed, at in itertools.product(range(2), (0, 1, 4)):
        options = {"seed": seed, "min_new_tokens": 7, "stop": "the", "logprobs": 1}
        options |= {"stop_tokens": [draw.choice(tokens_of(generator))]}
        whole = generator.generate(prompt, max_new_tokens=14, **options)
        first = generator.generate(prompt, max_new_tokens=at, keep_state=True, **options)
        state = first.state
        for _ in range(2):
            rest = generator.generate(state=state, max_new_tokens=14 - at, **options)
            assert first.tokens + rest.tokens == whole.tokens
            assert first.logprobs + rest.logprobs == whole.logprobs
            assert first.text + rest.text == whole.text
            # kept again before anything has come
            state = generator.generate(state=state, max_new_tokens=0, keep_state=True).state


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_text_is_scored_as_it_was_generated(generator, prompt):
    compared = 0
    for seed in range(4):
        by = {"strategy": "beam"} if seed % 2 else {}
        options = {"seed": seed, "max_new_tokens": 9, "logprobs": 0, "echo": True}
        made = generator.generate(prompt, **options, **by)
        text, fed = made.text.removeprefix(prompt), len(made.prompt_ids)
        (block,) = generator.score_tokens(text, prompt=prompt)
        assert spelled(generator, made.prompt_ids, block.tokens) == made.text
        known = [each.logprob for each in made.logprobs]
        for before in generator.score_tokens(spelled(generator, made.prompt_ids)):
            assert before.logprobs == pytest.approx(known[:fed])
        if block.tokens.tolist() == [*made.tokens]:  # a text has several spellings
            assert block.logprobs == pytest.approx(known[fed:])
            score = generator.score(text, prompt=prompt)
            assert (score.tokens, score.characters) == (len(block.tokens), len(text))
            compared += 1
    assert compared


def test_a_space_at_the_end_belongs_to_the_next_word():
    """Where tokens are words with the space before them."""
    words = trained(TEXT * 40, tokenizer=BPE, sampler=[])
    without = words.generate("the mouse", max_new_tokens=12, temperature=0)
    assert without.text.startswith(" ran down;  the c")
    made = words.generate("the mouse ", max_new_tokens=12, temperature=0)
    assert (" " + made.text, made.tokens) == (without.text, without.tokens)
    for prompt in ("ran down; ", "ran down;  ", "sat still.\n   ", "sat still.\n    "):
        likeliest = int(words.next_logprobs(prompt)[0].argmax())
        assert words.tokenizer.decode(np.array([likeliest])).strip() in ("", "the")
        before = words.tokenizer.encode(prompt[:-1])
        assert words.prepare(prompt).ids.tolist() == before.tolist()
    assert words.score("clock", prompt="the ").loss < 2
    state = words.generate("the ", max_new_tokens=0, keep_state=True).state
    made = words.generate("cat", state=state, max_new_tokens=1, temperature=0)
    assert spelled(words, made.prompt_ids) == " cat"
    assert words.generate("the mouse ", regex="(ran|sat)").text in ("ran", "sat")


def test_the_least_number_of_tokens_counts_those_of_the_state(generator):
    stops = tokens_of(generator)[::2]
    options = {"stop_tokens": stops, "min_new_tokens": 5}
    state = generator.generate("the", max_new_tokens=5, keep_state=True, **options).state
    _, sampled = generator.next_logprobs(state=state, **options)
    assert np.isfinite(sampled[stops]).any()
    _, anew = generator.next_logprobs("the", state=state, **options)
    assert not np.isfinite(anew[stops]).any()


def test_the_last_index_is_followed_by_the_first(generator):
    made = generator.generate_many(["the"], n=2, index=2**64 - 1, max_new_tokens=5)
    assert [each.index for each in made] == [2**64 - 1, 0]


BEFORE = {
    "He was\ntired of it.\n\nThey went\non and on.\n\n": ".\n\n",
    "A line of it.\n" * 50 + "\nChapter.\n\n": ".\n",
    "  One of them.\n  Two of them.\n": ".\n  ",
    "no line break ": "",
}


@pytest.mark.parametrize("text", BEFORE)
def test_texts_begin_after_a_paragraph_of_the_corpus(text):
    generator = trained(text * 60, sampler="greedy")
    before = generator.record["priming"]
    start = spelled(generator, before)
    assert start in text * 60
    assert start.endswith(BEFORE[text])
    assert bool(start) == bool(BEFORE[text])
    assert generator.score("no").characters == 1 + bool(start)  # after nothing, all but one
    ids = [*before, *generator.prepare("o").ids]
    assert (
        generator.generate("o", max_new_tokens=9).tokens
        == generator.generate(ids, max_new_tokens=9).tokens
    )
