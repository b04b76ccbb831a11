"""Streams: the same text in pieces, side by side, left early, closed or cancelled, and in bounded memory."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from watching import counting, watched

from textgen import (
    Generator,
)


@pytest.mark.fault(33)
@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_that_is_left_does_no_more_work_and_leaves_no_memory(
    finished_run: Path, close: bool, echo: bool
) -> None:
    watcher, generator = watched(finished_run)
    stream = generator.stream("the ", max_new_tokens=None, echo=echo)
    for _ in range(3):
        next(stream)
    calls = watcher.calls
    if close:
        stream.close()
        assert list(stream) == []
        assert stream.finish_reason == "cancelled"
    del stream
    gc.collect()
    assert watcher.calls == calls
    assert all(history() is None for history in watcher.histories)


def test_a_stream_is_closed_by_another_thread(finished_run: Path) -> None:
    counter, generator = counting(finished_run)
    stream = generator.stream("the " * 10_000)
    with ThreadPoolExecutor(1) as pool:
        pieces = pool.submit(list, stream)
        assert counter.begun.wait(60)
        stream.close()
        counter.gate.set()
        assert pieces.result(60) == []
    assert counter.fed < 20_000


def test_a_stream_says_why_it_ended(generator: Generator) -> None:
    stop = generator.generate("the ", max_new_tokens=20).text[10:14]
    for arguments, reason in (
        ({"max_new_tokens": 3}, "length"),
        ({"max_new_tokens": 30, "stop": stop}, "stop"),
        ({"max_new_tokens": None, "time_limit": 0.01}, "time"),
        ({"max_new_tokens": None, "cancelled": lambda: True}, "cancelled"),
    ):
        stream = generator.stream("the ", **arguments)
        assert stream.finish_reason is None
        assert "".join(stream) == generator.generate("the ", **arguments).text or reason == "time"
        assert (stream.finish_reason, stream.state) == (reason, None)


def test_another_thread_can_cancel_a_stream(finished_run: Path) -> None:
    watcher, generator = watched(finished_run, gate=threading.Event())
    assert watcher.gate is not None
    stream = generator.stream("the ", max_new_tokens=None)
    with ThreadPoolExecutor(1) as pool:
        pieces = pool.submit(list, stream)
        assert watcher.begun.wait(60)
        stream.cancel()
        watcher.gate.set()
        assert len("".join(pieces.result(60))) == watcher.calls == 1
    assert stream.finish_reason == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sizes"),
    [({}, (20_000, 60_000)), ({"stop": "\0never\0", "repetition_penalty": 1.1}, (5_000, 15_000))],
    ids=["plain", "penalty"],
)
def test_an_endless_stream_takes_no_more_memory(
    generator: Generator, options: dict[str, Any], sizes: tuple[int, int]
) -> None:
    texts: Iterator[str] = generator.stream("the ", max_new_tokens=None, **options)
    read(texts, 1000)
    tracemalloc.start()
    found = []
    try:
        for characters in (sizes[0], *[(sizes[1] - sizes[0]) // 2] * 2):
            tracemalloc.reset_peak()
            read(texts, characters)
            found.append(tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    (early, first_peak), *later = found
    assert later[-1][0] - early < 4096
    assert (
        min(peak for _, peak in later) - first_peak < 8192
    )  # once, another thread of the process may take more


def read(texts: Iterator[str], characters: int) -> None:
    """Read so many characters, and keep none."""
    while characters > 0:
        characters -= len(next(texts))
