"""What a stream says that was closed."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from textgen import (
    Component,
    ContractError,
    Engine,
    Generator,
    NoOptions,
    PluginSet,
    hookimpl,
)


def test_a_stream_that_is_closed_before_its_end_was_cancelled(generator: Generator) -> None:
    unread, begun = generator.stream("the "), generator.stream("the ", max_new_tokens=None)
    next(begun)
    for stream in (unread, begun):
        assert stream.finish_reason is None
        stream.close()
        assert (stream.finish_reason, list(stream)) == ("cancelled", [])
    with generator.stream("the ", max_new_tokens=None) as left:
        next(left)
    assert left.finish_reason == "cancelled"


def test_a_stream_that_has_ended_keeps_its_reason_when_it_is_closed(generator: Generator) -> None:
    with generator.stream("the ", max_new_tokens=5) as stream:
        assert len("".join(stream)) == 5
    stream.close()
    assert stream.finish_reason == "length"


def test_the_same_of_asynchronous_streams(generator: Generator) -> None:
    async def read() -> list[str | None]:
        unread, begun = (
            await generator.astream("the "),
            await generator.astream("the ", max_new_tokens=None),
        )
        await anext(begun)
        await unread.aclose()
        await begun.aclose()
        async with await generator.astream("the ", max_new_tokens=None) as left:
            await anext(left)
        async with await generator.astream("the ", max_new_tokens=5) as ended:
            assert len("".join([piece async for piece in ended])) == 5
        assert [piece async for piece in begun] == []
        return [stream.finish_reason for stream in (unread, begun, left, ended)]

    assert asyncio.run(read()) == ["cancelled", "cancelled", "cancelled", "length"]


def test_a_stream_whose_task_is_cancelled_was_cancelled(generator: Generator) -> None:
    async def read() -> str | None:
        stream = await generator.astream("the ", max_new_tokens=None)

        async def all_of_it() -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(all_of_it())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return stream.finish_reason

    assert asyncio.run(read()) == "cancelled"


def failing_at(call: int, run: Path | None) -> Generator:
    """A generator whose sampler fails at its call of that number."""

    class Failing:
        @hookimpl
        def textgen_samplers(self) -> list[Component]:
            calls = itertools.count()

            def sample(logits: Any, history: Any) -> Any:
                if next(calls) == call:
                    raise KeyError("lost")
                return logits

            return [Component("failing", NoOptions, lambda config, context: sample)]

    assert run is not None
    plugins = PluginSet.discover()
    plugins.register(Failing(), "failing")
    return Engine(plugins).load(run, sampler=[{"type": "failing"}])


@pytest.mark.parametrize("call", [0, 1, 3])
def test_a_stream_that_failed_gave_what_came_before_and_was_not_cancelled(
    generator: Generator, call: int
) -> None:
    stream = failing_at(call, generator.path).stream("the ", logprobs=0)
    pieces: list[str] = []
    with pytest.raises(ContractError):
        pieces.extend(stream)
    assert (len("".join(pieces)), stream.finish_reason) == (call, None)
    assert len(stream.logprobs) == len(stream.ids)


@pytest.mark.parametrize("call", [0, 1, 3])
def test_an_asynchronous_one_too(generator: Generator, call: int) -> None:
    pieces: list[str] = []

    async def read() -> None:
        async with await failing_at(call, generator.path).astream("the ") as stream:
            try:
                async for piece in stream:
                    pieces.append(piece)
            except ContractError:
                assert stream.finish_reason is None
            else:
                pytest.fail("the stream did not fail")

    asyncio.run(read())
    assert len("".join(pieces)) == call
