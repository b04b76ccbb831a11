"""Streams on an event loop: it stays free, and what nobody reads ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from watching import counting, watched

from textgen import (
    Component,
    ContractError,
    Engine,
    Generation,
    Generator,
    NoOptions,
    PluginSet,
    UsageError,
    hookimpl,
    option,
)


def test_an_async_stream_gives_the_same_text(generator: Generator) -> None:
    async def collect() -> str:
        return "".join(
            [piece async for piece in await generator.astream("the ", max_new_tokens=50, seed=3)]
        )

    assert asyncio.run(collect()) == generator.generate("the ", max_new_tokens=50, seed=3).text


def test_the_event_loop_stays_free(finished_run: Path) -> None:
    """Each token waits for a gate that only the event loop opens."""
    watcher, generator = watched(finished_run, gate=threading.Event())

    async def open_gate() -> None:
        while not watcher.begun.is_set():
            await asyncio.sleep(0)
        assert watcher.gate is not None
        watcher.gate.set()

    async def read() -> list[str]:
        return [piece async for piece in await generator.astream("the ", max_new_tokens=5)]

    async def both() -> list[str]:
        return (await asyncio.gather(read(), open_gate()))[0]

    assert len("".join(asyncio.run(both()))) == 5


def test_an_async_stream_that_is_left_stops(finished_run: Path) -> None:
    watcher, generator = watched(finished_run)

    async def read() -> int:
        stream = await generator.astream("the ", max_new_tokens=None)
        async for _ in stream:
            if watcher.calls >= 5:
                break
        await stream.aclose()
        calls = watcher.calls
        assert [piece async for piece in stream] == []
        return calls

    left = asyncio.run(read())
    end = time.monotonic() + 60
    while any(
        history() is not None for history in watcher.histories
    ):  # the loop's thread may still be in its step
        assert time.monotonic() < end
        time.sleep(0.01)
        gc.collect()
    assert watcher.calls - left <= 1  # its step


@pytest.mark.parametrize("whole", [False, True])
def test_a_task_that_is_cancelled_ends_its_text_while_the_prompt_is_read(
    finished_run: Path, whole: bool
) -> None:
    """Or a server would go on reading for a client that has gone."""
    counter, generator = counting(finished_run)
    prompt = "the " * 10_000

    async def read() -> None:
        if whole:
            await generator.agenerate(prompt)
        async for _ in await generator.astream(prompt):
            pass

    async def leave() -> None:
        task = asyncio.create_task(read())
        while not counter.begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        counter.gate.set()

    asyncio.run(leave())
    for thread in threading.enumerate():
        if thread.name == "textgen-generation":
            thread.join(60)
    assert counter.fed < len(prompt) / 2


def test_streams_leave_the_event_loops_own_threads_alone(finished_run: Path) -> None:
    watcher, generator = watched(finished_run, gate=threading.Event())

    async def both() -> list[str]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        reading = asyncio.create_task(anext(await generator.astream("the ")))
        while not watcher.begun.is_set():
            await asyncio.sleep(0)
        assert watcher.gate is not None
        await asyncio.to_thread(watcher.gate.set)  # which a stream must not keep waiting
        return [await reading]

    assert len(asyncio.run(both())) == 1


def test_an_async_stream_ends_as_a_stream_does(generator: Generator) -> None:
    async def read(at: int) -> tuple[str, str | None, Any]:
        stream = await generator.astream("the ", max_new_tokens=at, keep_state=True)
        assert (stream.finish_reason, stream.state) == (None, None)
        text = "".join([piece async for piece in stream])
        return text, stream.finish_reason, stream.state

    text, reason, state = asyncio.run(read(20))
    assert reason == "length"
    assert (
        text + generator.generate(state=state, max_new_tokens=30).text
        == generator.generate("the ", max_new_tokens=50).text
    )


def test_an_async_stream_gives_what_came_before_a_failure(finished_run: Path) -> None:
    class Failing:
        @hookimpl
        def textgen_samplers(self) -> list[Component]:
            calls = itertools.count()

            def sample(logits: Any, history: Any) -> Any:
                if next(calls) == 3:
                    raise KeyError("lost")
                return logits

            return [Component("failing", NoOptions, lambda config, context: sample)]

    plugins = PluginSet.discover()
    plugins.register(Failing(), "failing")
    generator = Engine(plugins).load(finished_run, sampler=[{"type": "failing"}])
    pieces: list[str] = []

    async def read() -> None:
        async for piece in await generator.astream("the ", max_new_tokens=10):
            pieces.append(piece)

    with pytest.raises(ContractError, match="'failing' failed: KeyError: 'lost'") as caught:
        asyncio.run(read())
    assert len("".join(pieces)) == 3
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_async_stream_goes_on_from_a_state(generator: Generator) -> None:
    whole = generator.generate("the ", max_new_tokens=30, seed=3)
    first = generator.generate("the ", max_new_tokens=10, seed=3, keep_state=True)

    async def rest() -> str:
        return "".join(
            [piece async for piece in await generator.astream(state=first.state, max_new_tokens=20)]
        )

    assert first.text + asyncio.run(rest()) == whole.text


def test_a_second_reader_of_a_stream_is_refused(finished_run: Path) -> None:
    watcher, generator = watched(finished_run, gate=threading.Event())

    async def read() -> None:
        stream = await generator.astream("the ", max_new_tokens=300)
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="another task waits for the next piece"):
            await anext(stream)
        assert watcher.gate is not None
        watcher.gate.set()
        text = await first + "".join([piece async for piece in stream])
        assert text == generator.generate("the ", max_new_tokens=300).text

    asyncio.run(asyncio.wait_for(read(), 60))


def test_a_stream_that_is_closed_wakes_its_reader(finished_run: Path) -> None:
    watcher, generator = watched(finished_run, gate=threading.Event())

    async def read() -> None:
        stream = await generator.astream("the ")
        reader = asyncio.create_task(anext(stream))
        while not watcher.begun.is_set():
            await asyncio.sleep(0)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await reader

    try:
        asyncio.run(asyncio.wait_for(read(), 60))
    finally:
        assert watcher.gate is not None
        watcher.gate.set()


@pytest.mark.parametrize("options", [{}, {"logprobs": 2, "echo": True}, {"keep_state": True}])
def test_a_whole_text_is_awaited(generator: Generator, options: dict[str, Any]) -> None:
    async def texts() -> list[Generation]:
        made = (
            generator.agenerate("the ", index=i, max_new_tokens=40, **options) for i in range(5)
        )
        return await asyncio.gather(*made)

    for index, made in enumerate(asyncio.run(texts())):
        assert made == generator.generate("the ", index=index, max_new_tokens=40, **options)
        assert (made.state is not None) == ("keep_state" in options)


def test_a_long_text_is_awaited_without_a_pause(generator: Generator) -> None:
    made = asyncio.run(generator.agenerate("the ", max_new_tokens=20_000))
    assert made.text == generator.generate("the ", max_new_tokens=20_000).text


def test_what_takes_long_to_prepare_is_done_beside_the_event_loop(finished_run: Path) -> None:
    """Samplers are built, and long prompts encoded, in another thread."""
    builders: list[threading.Thread] = []

    class Own:
        @hookimpl
        def textgen_samplers(self) -> list[Component]:
            return [Component("own", OwnConfig, build)]

    def build(config: OwnConfig, context: Any) -> Any:
        builders.append(threading.current_thread())
        return lambda logits, history: logits

    plugins = PluginSet.discover()
    plugins.register(Own(), "own")
    generator = Engine(plugins).load(finished_run)

    async def read() -> None:
        await generator.agenerate("the ", max_new_tokens=1, own_strength=2.0)
        stream = await generator.astream("the ", max_new_tokens=1, own_strength=3.0)
        await stream.aclose()

    asyncio.run(read())
    assert len(builders) == 2
    assert threading.main_thread() not in builders


@attrs.frozen
class OwnConfig:
    """Its own."""

    strength: float = option(1.0, help="how much", argument="own_strength")
