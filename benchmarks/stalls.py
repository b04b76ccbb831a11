"""Longest time for which an event loop waits while a request is answered, beside an idle loop and a
busy Python thread.

Usage: python benchmarks/stalls.py RUN [--seconds 3] [--repeats 3]

The run's vocabulary has to be able to write JSON. Times are milliseconds: the longest and the 99th
percentile of how much later than asked a sleep of 1 ms ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import textgen

SCHEMA = {
    "type": "object",
    "properties": {f"key{i:04d}": {"type": "string", "maxLength": 40} for i in range(2000)},
}
REQUESTS: dict[str, dict[str, Any]] = {
    "prompt of 2 MB": {"prompt": "the " * 500_000},
    "schema of 100 kB": {"json_schema": json.dumps(SCHEMA)},
    "the same again": {"json_schema": json.dumps(SCHEMA)},
    "schema with free keys": {"json_schema": {"type": "object"}},
    "nested repetitions": {"regex": "((a{1000}){1000}){1000}"},
    "many repetitions": {"regex": "([a-z]{1,500}){500}"},
}


async def stalls(until: Callable[[], bool]) -> str:
    """How late sleeps of 1 ms end while `until` is false."""
    late = []
    while not until():
        start = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(1000 * (time.perf_counter() - start) - 1)
    late.sort()
    return f"{late[-1]:6.1f} ms, 99 %: {late[int(0.99 * len(late))]:6.1f} ms"


async def measure(generator: textgen.Generator, seconds: float) -> None:
    """Print a line for each case."""

    def passed() -> Callable[[], bool]:
        end = time.perf_counter() + seconds
        return lambda: time.perf_counter() > end

    print(f"{'nothing':22} {await stalls(passed())}")
    stop = threading.Event()
    spinning = threading.Thread(target=lambda: [sum(range(100)) for _ in iter(stop.is_set, True)])
    spinning.start()
    print(f"{'a busy Python thread':22} {await stalls(passed())}")
    stop.set()
    spinning.join()
    for name, request in REQUESTS.items():
        start = time.perf_counter()
        asked = asyncio.create_task(
            generator.agenerate(**{"max_new_tokens": 20, "time_limit": seconds, **request})
        )
        late = await stalls(asked.done)
        said = asked.exception() or "a text"
        took = time.perf_counter() - start
        print(f"{name:22} {late}, answered after {took:.2f} s: {str(said)[:70]}")


def main() -> None:
    """Repeat the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--seconds", type=float, default=3, help="of each case, at most")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    generator = textgen.load(options.run)
    for _ in range(options.repeats):
        asyncio.run(measure(generator, options.seconds))


if __name__ == "__main__":
    main()
