"""Prompts that grow or come again: what is known of them is not fed again, and no text differs."""

import asyncio
import random

import pytest
from watching import counting, encoding

from textgen.generation import generator as generators

BLOCK = 256
WORDS = ("the", "time", "traveller", "smiled", "and", "struck", "hour", "of", "clock")


def long_text(length, seed=0):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(length))[:length]


@pytest.fixture
def counted(finished_run):
    """A generator that knows already how its decoder behaves."""
    watcher, generator = counting(finished_run)
    watcher.gate.set()
    asyncio.run(generator.agenerate("t", max_new_tokens=1))
    return watcher, generator


def fed(counted, prompt, **options):
    """How many tokens of a prompt the model is fed; the text is as it is without a cache."""
    watcher, generator = counted
    options |= {"max_new_tokens": 9, "seed": len(prompt)}
    before = watcher.fed
    made = asyncio.run(generator.agenerate(prompt, **options))
    count = watcher.fed - before - 8
    assert made == generator.generate(prompt, **options)
    return count


def test_a_prompt_that_comes_again_or_grows_is_fed_from_its_last_known_block_on(counted):
    text = long_text(2000)
    assert fed(counted, text[:1000]) == 1000
    assert fed(counted, text[:1000]) == 1000 - 3 * BLOCK
    assert fed(counted, text[:1600]) == 1600 - 3 * BLOCK
    assert fed(counted, text[: 2 * BLOCK]) == BLOCK  # a token is left to feed
    assert fed(counted, text[: 2 * BLOCK + 1]) == 1
    assert fed(counted, text[:300] + "hour") == 304 - BLOCK  # edited in the middle
    assert fed(counted, "t" + text) == 2001
    assert fed(counted, long_text(BLOCK, seed=1) + text[BLOCK:1000]) == 1000


def test_prompts_with_other_salts_share_nothing(counted):
    text = long_text(600)
    assert [fed(counted, text, cache_salt=salt) for salt in ("a", "b", "a")] == [600, 600, 88]


def test_the_least_recently_used_states_are_dropped(monkeypatch, request):
    monkeypatch.setattr(generators, "_CACHED", 1030)  # bytes: one state; two without arrays
    counted = request.getfixturevalue("counted")
    prompts = [*(long_text(600, seed) for seed in (0, 0, 1, 0)), long_text(600, 0)[:300]]
    assert [fed(counted, prompt) for prompt in prompts] == [600, 88, 600, 600, 300]


def test_texts_of_a_prompt_that_is_being_fed_do_not_feed_it_again(counted):
    watcher, generator = counted
    text, before = long_text(600), watcher.fed
    watcher.gate.clear()
    watcher.begun.clear()

    async def texts():
        def begin(index):
            made = generator.agenerate(text, index=index, max_new_tokens=1)
            return asyncio.create_task(made)

        tasks = [begin(0)]
        await asyncio.to_thread(watcher.begun.wait)
        tasks += [begin(index) for index in range(1, 5)]
        await asyncio.sleep(0)  # each waits for its turn now
        watcher.gate.set()
        return [made.text for made in await asyncio.gather(*tasks)]

    made = asyncio.run(texts())
    assert watcher.fed - before == 600 + 88
    assert made == [generator.generate(text, index=i, max_new_tokens=1).text for i in range(5)]


def test_a_prepared_prompt_is_encoded_once(generator):
    encoded, generator = encoding(generator)
    text = long_text(600)
    prepared = generator.prepare(text)
    made = list(generator.generate_many([prepared], n=3, max_new_tokens=5))
    made.append(asyncio.run(generator.agenerate(prepared, index=3, max_new_tokens=5)))
    assert [given for given, _ in encoded].count(text) == 1
    assert made == list(generator.generate_many([text], n=4, max_new_tokens=5))
