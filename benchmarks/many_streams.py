"""Concurrent asynchronous streams against generate_many of the same texts, on one event loop.

Usage: python benchmarks/many_streams.py [--streams 200] [--tokens 400] [--repeats 5]

For each model: tokens a second of the streams as a share of generate_many's, the time to the first piece, and the lag
of the event loop (how late a sleep of a millisecond ends). Both in turn, in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import textgen
from generation import trained

MODELS = (("gru", 64), ("lstm", 256))
SHARE, FIRST_MS, LAG_MS = 0.7, 50, 10


async def read_all(
    generator: textgen.Generator, count: int, tokens: int
) -> tuple[list[str], list[float], list[float]]:
    """The texts, the milliseconds to each first piece, and the lags of the event loop."""
    lags: list[float] = []
    firsts: list[float] = []
    begun = time.perf_counter()

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(1000 * (time.perf_counter() - before - 0.001))

    async def read(index: int) -> str:
        pieces = []
        async for piece in await generator.astream(
            "it has", index=index, max_new_tokens=tokens, temperature=0.8
        ):
            if not pieces:
                firsts.append(1000 * (time.perf_counter() - begun))
            pieces.append(piece)
        return "".join(pieces)

    watcher = asyncio.create_task(watch())
    texts = await asyncio.gather(*map(read, range(count)))
    watcher.cancel()
    return texts, firsts, lags


def compare(generator: textgen.Generator, name: str, count: int, tokens: int, repeats: int) -> None:
    """Print the figures of one model."""
    shares, firsts, lags = [], [], []
    for number in range(repeats + 1):  # the first is a warm-up
        begun = time.perf_counter()
        whole = list(
            generator.generate_many(["it has"], n=count, max_new_tokens=tokens, temperature=0.8)
        )
        alone = time.perf_counter() - begun
        begun = time.perf_counter()
        texts, first, lag = asyncio.run(read_all(generator, count, tokens))
        together = time.perf_counter() - begun
        assert texts == [generation.text for generation in whole]
        if number:
            shares.append(alone / together)
            firsts += first
            lags += lag
    show(
        f"{name}, {count} streams: share of generate_many's tokens a second",
        spread(shares),
        f"at least {SHARE}",
    )
    show(
        f"{name}: first piece, ms (least, median, greatest)",
        spread(firsts),
        f"median at most {FIRST_MS}",
    )
    tail = statistics.quantiles(lags, n=20)[-1]
    show(f"{name}: lag of the event loop, ms (median, 95th percentile, greatest)",
         (statistics.median(lags), tail, max(lags)), f"95th percentile at most {LAG_MS}")  # fmt: skip


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(least, median, greatest)."""
    return min(values), statistics.median(values), max(values)


def show(name: str, figures: tuple[float, float, float], target: str) -> None:
    """Print a line."""
    print(f"{name:70} {figures[0]:8.2f} {figures[1]:8.2f} {figures[2]:8.2f}   {target}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for cell, units in MODELS:
            generator = trained(Path(folder), cell, units)
            name = f"{cell} {units}"
            compare(generator, name, arguments.streams, arguments.tokens, arguments.repeats)


if __name__ == "__main__":
    main()
