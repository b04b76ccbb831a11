"""Measures `textgen serve` under concurrent streams, and compares every text with the one made
alone.

    python benchmarks/load.py RUN --streams 1000 --tokens 200

Prints one JSON object: the time to the first text after `--prompt` when it comes for the first
time, and when it comes again; tokens a second of one stream, of all together and of generate_many;
the time to the first text among all; the time of GET /health meanwhile; the time of an answer right
after 200 clients of 10,000 tokens each have left, who waited for half a second; and how many texts
differ, which must be 0. The server runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import textgen


def main() -> int:
    """Serve the run, load it, and print the figures; 1 where a text differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--prompt", default="")
    options = parser.parse_args()
    line = [sys.executable, "-m", "textgen", "serve", str(options.run), "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as server:
        try:
            found = re.search(r"http://([\d.]+):(\d+)", server.stderr.readline())
            made = asyncio.run(measured((found[1], int(found[2])), options))
        finally:
            server.terminate()
    generator, count = textgen.load(options.run), options.streams
    prompts = [
        {"prompt": options.prompt, "seed": i, "index": 0, "max_new_tokens": options.tokens}
        for i in range(count)
    ]
    begun = time.perf_counter()
    alone = [made.text for made in generator.generate_many(prompts)]
    made["generate_many_tokens_per_second"] = round(
        count * options.tokens / (time.perf_counter() - begun)
    )
    texts = made.pop("texts")
    made["different_texts"] = sum(a != b for a, b in zip(texts, alone, strict=True))
    made["ratio_to_one_stream"] = round(
        made["tokens_per_second"] / made["one_stream_tokens_per_second"], 2
    )
    made["ratio_to_generate_many"] = round(
        made["tokens_per_second"] / made["generate_many_tokens_per_second"], 2
    )
    print(json.dumps(made, indent=2))
    return int(made["different_texts"] > 0)


async def measured(address: tuple[str, int], options: argparse.Namespace) -> dict:
    """The figures of the server, and the texts of all streams."""
    body = {"prompt": options.prompt, "max_tokens": options.tokens, "stream": True}
    await stream(address, {**body, "prompt": "", "seed": 0})  # warm
    prompted = [(await stream(address, {**body, "seed": 0}))[1] for _ in range(2)]
    begun = time.perf_counter()
    await stream(address, {**body, "seed": 0})
    one = options.tokens / (time.perf_counter() - begun)
    watching = asyncio.create_task(watch(address))
    begun = time.perf_counter()
    texts = await asyncio.gather(
        *(stream(address, {**body, "seed": i}) for i in range(options.streams))
    )
    seconds = time.perf_counter() - begun
    watching.cancel()
    firsts = sorted(first for _, first in texts)
    health = sorted(await watching)
    endless = {**body, "max_tokens": 10_000}
    await asyncio.gather(*(leave(address, {**endless, "seed": i}, 0.5) for i in range(200)))
    begun = time.perf_counter()
    await stream(address, {**body, "max_tokens": 10, "seed": 0})
    answered = time.perf_counter() - begun
    return {
        "prompt_first_ms": round(1000 * prompted[0], 1),
        "prompt_again_ms": round(1000 * prompted[1], 1),
        "streams": options.streams,
        "tokens_each": options.tokens,
        "one_stream_tokens_per_second": round(one),
        "tokens_per_second": round(options.streams * options.tokens / seconds),
        "first_text_ms_median": round(1000 * statistics.median(firsts)),
        "first_text_ms_p99": round(1000 * firsts[int(0.99 * (len(firsts) - 1))]),
        "health_ms_median": round(1000 * statistics.median(health), 1),
        "health_ms_max": round(1000 * health[-1], 1),
        "answer_after_200_left_ms": round(1000 * answered, 1),
        "texts": [text for text, _ in texts],
    }


async def stream(address: tuple[str, int], body: dict) -> tuple[str, float]:
    """A text, and the seconds until its first piece.

    On a bare socket: a client library costs more than the server.
    """
    data = json.dumps(body).encode()
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data)
    )
    begun, first, parts = time.perf_counter(), 0.0, []
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(head + data)
        async for line in reader:
            if line.startswith(b"data: {"):
                first = first or time.perf_counter() - begun
                parts.append(json.loads(line[6:])["choices"][0]["text"])
    finally:
        writer.close()
    return "".join(parts), first


async def leave(address: tuple[str, int], body: dict, seconds: float) -> None:
    """Ask for a text, and close the connection after some seconds."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stream(address, body), seconds)


async def watch(address: tuple[str, int]) -> list[float]:
    """The seconds of GET /health on one connection, again and again, until cancelled."""
    reader, writer = await asyncio.open_connection(*address)
    taken: list[float] = []
    try:
        while True:
            begun = time.perf_counter()
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b'"ok"}')
            taken.append(time.perf_counter() - begun)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        writer.close()
        return taken


if __name__ == "__main__":
    raise SystemExit(main())
