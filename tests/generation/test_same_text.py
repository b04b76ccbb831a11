"""The same text, whichever way it is asked for: chains of samplers, each in every way."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import chain, zip_longest
from pathlib import Path

import pytest
from prompts import PROMPTS, STATES_AND_CHANCE

from textgen import GenerationState

LENGTH = 48
CHAINS = {
    "greedy": {"temperature": 0},
    "sampled": {},
    "cut-off": {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.01},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.3, "presence_penalty": 0.2},
    "no-repetition": {"dry_multiplier": 3, "temperature": 0, "logit_bias": {"e": 2.0}},
    "states-and-chance": STATES_AND_CHANCE,
    "form": {"regex": "[a-z ]{20,40}"},
    "stop-texts": {"stop": ["th", "e "], "min_new_tokens": 5, "echo": True},
    "stop-tokens": {"stop_tokens": [3, 4], "min_new_tokens": 5, "temperature": 0},
}


def one_by_one(generator, options, _):
    return [generator.generate(p, index=i, **options).text for i, p in enumerate(PROMPTS)]


def streamed(generator, options, _):
    return ["".join(generator.stream(p, index=i, **options)) for i, p in enumerate(PROMPTS)]


def in_threads(generator, options, folder):
    with ThreadPoolExecutor(8) as pool:
        ways = [one_by_one, streamed] * 4
        first, *others = pool.map(lambda way: way(generator, options, folder), ways)
    assert others == [first] * 7
    return first


def in_batches(size, generator, options, _):
    return [made.text for made in generator.generate_many(PROMPTS, batch_size=size, **options)]


def beside_others(generator, options, _):
    """Others have other samplers, and end before and after it."""
    others = [
        {"prompt": "the ", "max_new_tokens": n, "index": 50 + n, "xtc_probability": n % 3 / 2}
        for n in (1, 7, 30, 64, 90)
    ]
    mine = [{"prompt": p, "index": i, **options} for i, p in enumerate(PROMPTS)]
    mixed = filter(None, chain.from_iterable(zip_longest(others, mine)))
    texts = {made.index: made.text for made in generator.generate_many(mixed, batch_size=4)}
    return [texts[i] for i in range(len(PROMPTS))]


def asynchronous(generator, options, _):
    async def text(index, prompt):
        if index % 2:
            return (await generator.agenerate(prompt, index=index, **options)).text
        stream = await generator.astream(prompt, index=index, **options)
        return "".join([piece async for piece in stream])

    async def together():
        return await asyncio.gather(*(text(i, prompt) for i, prompt in enumerate(PROMPTS)))

    return asyncio.run(together())


def resumed(at, generator, options, folder):
    """Saved after `at` tokens, by a text or a stream, and resumed alone and in a batch."""
    texts, rest = [], {**options, "max_new_tokens": LENGTH - at}
    begun = {**options, "max_new_tokens": at, "keep_state": True}
    first = list(generator.generate_many(PROMPTS, **begun))
    states = [reloaded(made.state, folder) for made in first]
    together = list(generator.generate_many([{"state": state} for state in states], **rest))
    for made, state, later in zip(first, states, together, strict=True):
        alone = generator.generate(state=state, **rest)
        assert (alone.text, alone.index) == (later.text, made.index)
        assert "".join(generator.stream(state=state, **rest)) == later.text
        texts.append(made.text + later.text)
    return texts


def reloaded(state, folder):
    state.save(folder / "state")
    return GenerationState.load(folder / "state")


WAYS = {
    "streamed": streamed,
    "in-threads": in_threads,
    **{f"in-batches-of-{size}": partial(in_batches, size) for size in (1, 3, 64)},
    "beside-others": beside_others,
    "asynchronous": asynchronous,
    **{f"resumed-at-{at}": partial(resumed, at) for at in (0, 1, 21, 47)},
}


# A state is resumed with limits of its own: the least number of tokens is that of each call.
TABLE = [
    (name, way)
    for name, options in CHAINS.items()
    for way in WAYS
    if not ("min_new_tokens" in options and way.startswith("resumed"))
]


@pytest.fixture(scope="module")
def alone(lively):
    """The texts of PROMPTS with a chain, each by itself."""
    return cache(lambda name: one_by_one(lively, asked(name), Path()))


def asked(name):
    return {"max_new_tokens": LENGTH, "seed": 11, **CHAINS[name]}


@pytest.mark.fault(34)
@pytest.mark.parametrize(("name", "way"), TABLE)
def test_a_text_is_the_same(lively, alone, name, way, tmp_path):
    if name == "form":
        pytest.importorskip("llguidance")
    assert WAYS[way](lively, asked(name), tmp_path) == alone(name)


def test_a_text_resumes_in_another_process(python, generator, tmp_path):
    options = {**CHAINS["penalties"], **STATES_AND_CHANCE}
    script = (
        "import json, sys, textgen\n"
        "generator, state = textgen.load(sys.argv[1]), textgen.GenerationState.load('state')\n"
        "options = json.loads(sys.argv[2])\n"
        "print(generator.generate(max_new_tokens=70, state=state, **options).text)\n"
    )
    first = generator.generate("the ", max_new_tokens=50, keep_state=True, **options)
    first.state.save(tmp_path / "state")
    whole = generator.generate("the ", max_new_tokens=120, **options).text
    done = python("-c", script, generator.path, json.dumps(options), cwd=tmp_path)
    assert (done.code, first.text + done.stdout) == (0, f"{whole}\n"), done.stderr
