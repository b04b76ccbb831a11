"""Requests that come at the same time share batches, and each gets what it would have got alone."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from watching import watched

from textgen import (
    Component,
    ContractError,
    Engine,
    Generator,
    NoOptions,
    PluginSet,
    hookimpl,
)

OPTIONS: list[dict[str, Any]] = [
    {"max_new_tokens": 20},
    {"max_new_tokens": 33, "temperature": 0.7},
    {"max_new_tokens": 25, "temperature": 0.7, "top_k": 3, "seed": 5},
    {"max_new_tokens": 40, "temperature": 0},
    {"max_new_tokens": 40, "stop": "e", "temperature": 1.2},
    {"max_new_tokens": 30, "repetition_penalty": 1.3, "min_new_tokens": 5, "stop_tokens": [1, 2]},
    {"max_new_tokens": 10, "no_repeat_ngram": 3},
    {"max_new_tokens": 0},
]
PROMPTS = ["the ", "", "a clock", "the time traveller smiled", "hour"]


def request(number: int) -> tuple[str, dict[str, Any]]:
    return PROMPTS[number % len(PROMPTS)], {**OPTIONS[number % len(OPTIONS)], "index": number}


async def text_of(generator: Generator, number: int) -> str:
    prompt, options = request(number)
    await asyncio.sleep(0.0001 * (number % 7))
    return "".join([piece async for piece in await generator.astream(prompt, **options)])


def test_a_thousand_concurrent_streams_each_give_the_text_of_one_alone(
    generator: Generator,
) -> None:
    async def read() -> list[str]:
        return await asyncio.gather(*(text_of(generator, number) for number in range(1000)))

    made = asyncio.run(read())
    expected = {}
    for number in range(1000):
        prompt, options = request(number)
        expected[number] = generator.generate(prompt, **options).text
    assert made == list(expected.values())
    for thread in threading.enumerate():
        if thread.name == "textgen-generation":
            thread.join(60)
            assert not thread.is_alive()


def test_a_request_joins_and_leaves_a_running_batch(generator: Generator) -> None:
    """Whole texts, by a batch that never holds more than three of them."""
    requests = [dict(prompt=prompt, **options) for prompt, options in map(request, range(80))]
    made = list(generator.generate_many(requests, batch_size=3))
    assert [generation.text for generation in made] == [
        generator.generate(prompt, **options).text for prompt, options in map(request, range(80))
    ]


@pytest.mark.slow
def test_streams_that_are_dropped_leave_at_once_and_change_no_other_text(
    finished_run: Path,
) -> None:
    watcher, generator = watched(finished_run)
    rows: list[int] = []

    async def read(number: int) -> str:
        stream = await generator.astream(
            "the ", index=number, max_new_tokens=None if number < 60 else 3000
        )
        text = ""
        async for piece in stream:
            text += piece
            if number < 60 and len(text) > 100:
                break
        if number < 60:
            await stream.aclose()
        return text

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(read, range(100)))

    made = asyncio.run(all_of_them())
    for number in range(60, 100):
        assert made[number] == generator.generate("the ", index=number, max_new_tokens=3000).text
    del rows, watcher
    gc.collect()


def test_rows_of_dropped_streams_are_gone_within_a_step(finished_run: Path) -> None:
    """The sampler sees how many rows there are; after 60 of 100 are dropped, no further step has more than 40."""
    sizes: list[int] = []
    dropped = threading.Event()
    generator = sampling(
        finished_run,
        lambda logits: sizes.append(len(logits)) or time.sleep(0.001 * dropped.is_set()),
    )

    async def read() -> None:
        streams = [
            await generator.astream("the ", index=number, max_new_tokens=None)
            for number in range(100)
        ]
        await asyncio.gather(*(anext(stream) for stream in streams))
        for stream in streams[:60]:
            await stream.aclose()
        dropped.set()
        before = len(sizes)
        while len(sizes) < before + 20:
            await asyncio.sleep(0.001)
        assert max(sizes[before + 2 : before + 20]) == 40
        for stream in streams[60:]:
            await stream.aclose()

    asyncio.run(read())


def test_a_stream_that_is_forgotten_ends_too(finished_run: Path) -> None:
    watcher, generator = watched(finished_run)

    async def forget() -> None:
        stream = await generator.astream("the ", max_new_tokens=None)
        await anext(stream)
        del stream
        gc.collect()

    asyncio.run(forget())
    for thread in threading.enumerate():
        if thread.name == "textgen-generation":
            thread.join(60)
            assert not thread.is_alive()
    assert watcher.calls


def test_a_reader_that_is_behind_costs_bounded_memory_and_loses_nothing(
    generator: Generator,
) -> None:
    """Its text pauses after some thousand tokens, and goes on when it reads again."""

    async def read() -> str:
        stream = await generator.astream("the ", max_new_tokens=60_000)
        text = await anext(stream)
        await asyncio.to_thread(
            lambda: [t.join(60) for t in threading.enumerate() if t.name == "textgen-generation"]
        )
        assert stream.finish_reason is None
        return text + "".join([piece async for piece in stream])

    assert asyncio.run(read()) == generator.generate("the ", max_new_tokens=60_000).text


def test_one_request_that_fails_harms_no_other(finished_run: Path) -> None:
    """A sampler that forbids everything in the rows whose text has a certain token, as a grammar may."""

    def forbid(logits: Any, history: Any) -> Any:
        made = logits.copy()
        for row in range(len(made)):
            if 5 in history.tokens(row)[4:]:
                made[row] = -float("inf")
        return made

    generator = with_sampler(finished_run, forbid)
    alone: list[str | None] = []
    for index in range(30):
        try:
            alone.append(generator.generate("the ", index=index, max_new_tokens=40).text)
        except ContractError:
            alone.append(None)
    assert None in alone
    assert any(alone)

    async def read(index: int) -> str | None:
        try:
            return "".join(
                [
                    piece
                    async for piece in await generator.astream(
                        "the ", index=index, max_new_tokens=40
                    )
                ]
            )
        except ContractError:
            return None

    async def all_of_them() -> list[str | None]:
        return await asyncio.gather(*map(read, range(30)))

    assert asyncio.run(all_of_them()) == alone


@pytest.mark.parametrize("stop", [None, "e"])
def test_streams_of_several_event_loops_share_a_batch(
    generator: Generator, stop: str | None
) -> None:
    texts: dict[int, str] = {}

    def run(number: int) -> None:
        async def read() -> str:
            stream = await generator.astream("the ", index=number, max_new_tokens=200, stop=stop)
            return "".join([piece async for piece in stream])

        texts[number] = asyncio.run(read())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        assert (
            texts[number]
            == generator.generate("the ", index=number, max_new_tokens=200, stop=stop).text
        )


def sampling(run: Path, note: Callable[[Any], object]) -> Generator:
    def sample(logits: Any, history: Any) -> Any:
        note(logits)
        return logits

    return with_sampler(run, sample)


def with_sampler(run: Path, sample: Callable[[Any, Any], Any]) -> Generator:
    class Own:
        @hookimpl
        def textgen_samplers(self) -> list[Component]:
            return [Component("own", NoOptions, lambda config, context: sample)]

    plugins = PluginSet.discover()
    plugins.register(Own(), "own")
    return Engine(plugins).load(run, sampler=[{"type": "own"}])
