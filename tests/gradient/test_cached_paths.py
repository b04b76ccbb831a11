"""Every path that keeps a state gives the text of the plain one, for every kind of model."""

import asyncio

import network_plugin
import numpy as np
import pytest
from small_trainings import TEXT

from textgen import Engine, PluginSet

NGRAM = {"type": "ngram", "order": 3}
MODELS = {
    "network": {"type": "rnn", "cell": "lstm", "hidden_size": 8},
    "n-grams": NGRAM,
    "module": {"type": "dropping"},
    "growing": {"type": "attention"},
    "mixture": {"type": "mixture", "first": {"type": "rnn", "hidden_size": 8}, "second": NGRAM},
    "mixed-module": {"type": "mixture", "first": {"type": "dropping"}, "second": NGRAM},
    "mixed-growing": {"type": "mixture", "first": {"type": "attention"}, "second": NGRAM},
}
TRAINER = {"type": "adamw", "length": "8 steps", "batch_size": 6, "order": "streams"}
# Prompts that share beginnings of several blocks, one of less than a block, and an empty one.
PROMPTS = (TEXT[:600], TEXT[:300], TEXT[:600], TEXT[:900], f"no one {TEXT[:600]}", "the clock", "")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if "mix" in name else []) for name in MODELS
    ],
)
def generator(request):
    model, plugins = MODELS[request.param], PluginSet.discover()
    plugins.register(network_plugin, "networks", distribution="networks", version="1")
    kind = model["type"]
    trainer = {"ngram": {"type": "count"}, "mixture": {"type": kind, "first": TRAINER}}
    made = Engine(plugins).train(
        corpus=TEXT,
        tokenizer="char",
        model=model,
        trainer=trainer.get(kind, TRAINER),
        data={"window_length": 12},
        device="cpu",
    )
    return made.generator


@pytest.mark.parametrize("options", [{"temperature": 0}, {"stop": "k", "dry_multiplier": 1.0}])
def test_a_text_is_that_of_the_plain_path(generator, options):
    options = {"max_new_tokens": 24, **options}
    asked = [{"prompt": p, "index": i, "seed": 3, **options} for i, p in enumerate(PROMPTS)]
    plain = [generator.generate(**each) for each in asked]
    chain = {"repetition_penalty": 1.5, "temperature": 0.5}
    following = [np.stack(generator.next_logprobs(p, **chain)).tolist() for p in PROMPTS]

    async def next_of(each):
        return np.stack(await generator.anext_logprobs(each["prompt"], **chain)).tolist()

    async def halves(each):
        stream = await generator.astream(**each | {"max_new_tokens": 9, "keep_state": True})
        begun = "".join([piece async for piece in stream])
        if stream.finish_reason != "length":
            return begun
        rest = await generator.agenerate(state=stream.state, **options | {"max_new_tokens": 15})
        return begun + rest.text

    async def ways():
        for _ in range(2):  # all at once, and by what that left
            assert [*await asyncio.gather(*(generator.agenerate(**e) for e in asked))] == plain
            assert [await generator.agenerate(**each) for each in asked] == plain
        assert [await next_of(each) for each in asked] == following
        for made in (
            [await halves(each) for each in asked],
            await asyncio.gather(*map(halves, asked)),
        ):
            assert made == [each.text for each in plain]

    asyncio.run(ways())
    assert [*generator.generate_many(asked)] == plain
