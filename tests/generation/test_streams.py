"""Streams, read by a loop or on an event loop: left early, closed, cancelled, failing, and in
bounded memory.
"""

import asyncio
import contextlib
import gc
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
from raising import raises
from watching import counting, encoding, failing_at, join_background, text_of, watched

from textgen import ContractError, UsageError, load


def run(awaitable):
    return asyncio.run(asyncio.wait_for(awaitable, 60))


async def begin(event):
    """Wait, without holding up the event loop."""
    while not event.is_set():
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_new_tokens": 3}, "length"),
        ({"max_new_tokens": 30, "stop": "e"}, "stop"),
        ({"time_limit": 0}, "time"),
        ({"cancelled": lambda: True}, "cancelled"),
    ],
)
def test_a_stream_says_why_it_ended(generator, options, reason):
    stream = generator.stream("the ", **options)
    assert stream.finish_reason is None
    assert "".join(stream) == generator.generate("the ", **options).text
    assert (stream.finish_reason, stream.state) == (reason, None)
    stream.close()
    assert stream.finish_reason == reason


@pytest.mark.fault(33)
@pytest.mark.parametrize("close", [False, True])
def test_a_stream_that_is_left_does_no_more_work_and_leaves_no_memory(finished_run, close):
    watcher, generator = watched(finished_run)
    stream = generator.stream("the ", max_new_tokens=None, echo=True)
    with stream if close else contextlib.nullcontext():
        for _ in range(3):
            next(stream)
    calls = watcher.calls
    if close:
        assert (list(stream), stream.finish_reason) == ([], "cancelled")
    del stream
    gc.collect()
    assert watcher.calls == calls
    assert all(history() is None for history in watcher.histories)


@pytest.mark.fault(33)
@pytest.mark.parametrize("close", [False, True])
def test_an_asynchronous_one_too(finished_run, close):
    watcher, generator = watched(finished_run)

    async def read():
        stream = await generator.astream("the ", max_new_tokens=None)
        async with stream if close else contextlib.nullcontext():
            await anext(stream)
        if close:
            assert [piece async for piece in stream] == []
            assert stream.finish_reason == "cancelled"
        del stream
        gc.collect()

    run(read())
    join_background()
    gc.collect()
    assert all(history() is None for history in watcher.histories)


def test_closing_before_the_first_piece_cancels_and_after_the_last_changes_nothing(generator):
    unread = generator.stream("the ")
    unread.close()

    async def read():
        unread, ended = [await generator.astream("the ", max_new_tokens=5) for _ in range(2)]
        await unread.aclose()
        assert len("".join([piece async for piece in ended])) == 5
        await ended.aclose()
        return unread.finish_reason, ended.finish_reason

    assert unread.finish_reason == "cancelled"
    assert run(read()) == ("cancelled", "length")


def test_another_thread_can_close_a_stream_while_its_prompt_is_read(finished_run):
    counter, generator = counting(finished_run)
    stream = generator.stream("the " * 10_000)
    with ThreadPoolExecutor(1) as pool:
        pieces = pool.submit(list, stream)
        assert counter.begun.wait(60)
        stream.close()
        counter.gate.set()
        assert pieces.result(60) == []
    assert counter.fed < 20_000


@pytest.mark.parametrize("whole", [False, True])
def test_a_task_that_is_cancelled_ends_its_text_while_the_prompt_is_read(finished_run, whole):
    """Or a server would go on reading for a client that has gone."""
    counter, generator = counting(finished_run)
    prompt = "the " * 10_000
    left = []

    async def read():
        if whole:
            await generator.agenerate(prompt)
        left.append(await generator.astream(prompt))
        await anext(left[0])

    async def leave():
        task = asyncio.create_task(read())
        await begin(counter.begun)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        counter.gate.set()

    run(leave())
    join_background()
    assert counter.fed < len(prompt) / 2
    assert [stream.finish_reason for stream in left] == ([] if whole else ["cancelled"])


def test_a_short_prompt_is_read_before_the_rest_of_a_long_one(finished_run):
    counter, generator = counting(finished_run)
    prompt = "the " * 50_000

    async def fed_before_it():
        long = asyncio.create_task(generator.agenerate(prompt, max_new_tokens=1))
        counter.gate.set()
        while counter.fed < 5_000:
            await asyncio.sleep(0)
        await generator.agenerate("the ", max_new_tokens=20)
        fed = counter.fed
        await long
        return fed

    assert run(fed_before_it()) < len(prompt)


@pytest.mark.parametrize("call", [0, 3])
def test_a_stream_that_failed_gave_what_came_before_and_was_not_cancelled(finished_run, call):
    pieces = []
    stream = failing_at(finished_run, call).stream("the ", logprobs=0)
    with raises(ContractError, component="sample") as caught:
        pieces.extend(stream)
    assert isinstance(caught.value.__cause__, KeyError)
    assert (len("".join(pieces)), stream.finish_reason) == (call, None)
    assert len(stream.logprobs) == len(stream.ids)

    async def read(stream):
        async for piece in stream:
            pieces.append(piece)

    async def both():
        pieces.clear()
        async with await failing_at(finished_run, call).astream("the ") as stream:
            with pytest.raises(ContractError):
                await read(stream)
            assert (len("".join(pieces)), stream.finish_reason) == (call, None)

    run(both())


def test_the_event_loop_and_its_threads_stay_free(finished_run):
    """The first token waits for a gate that only the event loop opens, in its only thread."""
    watcher, generator = watched(finished_run, closed=True)

    async def both():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        reading = asyncio.create_task(text_of(generator.astream("the ", max_new_tokens=5)))
        await begin(watcher.begun)
        await asyncio.to_thread(watcher.gate.set)
        return await reading

    assert len(run(both())) == 5


def test_closing_wakes_the_reader(finished_run):
    watcher, generator = watched(finished_run, closed=True)

    async def read():
        stream = await generator.astream("the ")
        first = asyncio.create_task(anext(stream))
        await begin(watcher.begun)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await first

    try:
        run(read())
    finally:
        watcher.gate.set()


def test_a_closed_generator_makes_nothing_more(finished_run):
    watcher, generator = watched(finished_run)
    endless = {"max_new_tokens": None, "stop": "never"}
    stream = generator.stream("the ", **endless)
    many = generator.generate_many(["the "] * 50, batch_size=2, max_new_tokens=5)
    next(stream)
    next(many)

    async def both():
        making = asyncio.create_task(generator.agenerate("the ", **endless, temperature=0.5))
        other = await generator.astream("the ", **endless)
        await anext(other)
        generator.close()
        calls = watcher.calls
        with pytest.raises(UsageError):
            await making
        with pytest.raises(UsageError):
            async for _ in other:
                pass
        with pytest.raises(UsageError):
            await generator.agenerate("the ")
        with pytest.raises(UsageError):
            await generator.astream("the ")
        return calls

    calls = run(both())
    for use in (
        lambda: [*stream],
        lambda: [*many],
        lambda: generator.generate("the "),
        lambda: next(generator.generate_many(["the "])),
        lambda: generator.stream("the "),
        lambda: generator.score("the "),
        lambda: generator.logits("the "),
        lambda: generator.next_logprobs("the "),
        lambda: generator.prepare("the "),
        generator.module,
        generator.copy_finder,
    ):
        with pytest.raises(UsageError):
            use()
    assert watcher.calls == calls
    generator.close()


def test_long_prompts_are_encoded_beside_the_event_loop(generator):
    encoded, generator = encoding(generator)
    long = "the " * 2000
    run(generator.agenerate(long, max_new_tokens=1))
    run(text_of(generator.astream(long, max_new_tokens=1)))
    threads = [thread for text, thread in encoded if text == long]
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_a_short_request_goes_through_no_thread(generator):
    encoded, generator = encoding(generator)
    state = generator.generate("the ", max_new_tokens=2, keep_state=True).state
    options = {"cancelled": lambda: False, "state": state, "temperature": None, "max_new_tokens": 1}
    run(generator.agenerate("river", **options))
    (thread,) = [thread for text, thread in encoded if text == "river"]
    assert thread is threading.main_thread()


def test_streams_of_several_event_loops_share_a_batch(generator):
    def text(index):
        return run(text_of(generator.astream("the ", index=index, max_new_tokens=200)))

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(text, range(8)))
    many = generator.generate_many(["the "], n=8, max_new_tokens=200)
    assert texts == [made.text for made in many]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"stop": "\0never\0", "repetition_penalty": 1.1}])
def test_an_endless_stream_takes_no_more_memory(generator, options):
    """Whatever were kept of each token would take more than a byte."""
    stream, found = generator.stream("the ", max_new_tokens=None, **options), []
    tracemalloc.start()
    try:
        for _ in range(2):
            left = 20_000
            while left > 0:
                left -= len(next(stream))
            found.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert found[1] - found[0] < 20_000


def test_a_thread_that_cannot_be_started_fails_one_request_alone(finished_run, monkeypatch):
    generator = load(finished_run)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", mock.Mock(side_effect=RuntimeError("no thread")))
        with raises(RuntimeError, args=("no thread",)):
            asyncio.run(generator.agenerate("the ", max_new_tokens=3))
    made = asyncio.run(asyncio.wait_for(generator.agenerate("the ", max_new_tokens=3), 60))
    assert made == generator.generate("the ", max_new_tokens=3)
