"""Measures `textgen serve` under concurrent streams, and compares every text with the one made
alone.

    python benchmarks/load.py RUN --streams 1000 --tokens 200 --repeats 5

Prints one JSON object, with the least, median and greatest of each figure: the time to the first
text after `--prompt` when it comes for the first time, and when it comes again; tokens a second of
one stream, of all together and of generate_many, and their ratios; the time to the first text among
all; the time of GET /health meanwhile; the time of an answer right after 200 clients of 10,000
tokens each have left, who waited for half a second; and how many texts differ, which must be 0.
Server, clients and GET /health have a process each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import textgen

Address = tuple[str, int]


def main() -> int:
    """Serve the run, load it, and print the figures; 1 where a text differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    generator = textgen.load(options.run)
    with serving(options.run) as address:
        body = {"prompt": options.prompt, "max_tokens": options.tokens}
        streams(address, [{**body, "prompt": "", "seed": 0}])  # warm
        prompted = [streams(address, [{**body, "seed": 0}])[0][1] for _ in range(2)]
        turns = [measured(address, generator, options) for _ in range(options.repeats)]
    made = {
        "streams": options.streams,
        "tokens_each": options.tokens,
        "prompt_first_ms": round(1000 * prompted[0], 1),
        "prompt_again_ms": round(1000 * prompted[1], 1),
    }
    for name in turns[0]:
        each = [turn[name] for turn in turns]
        made[name] = [round(f(each), 2) for f in (min, statistics.median, max)]
    print(json.dumps(made, indent=2))
    return int(made["different_texts"][-1] > 0)


def measured(
    address: Address, generator: textgen.Generator, options: argparse.Namespace
) -> dict[str, float]:
    """The figures of one turn."""
    count, tokens = options.streams, options.tokens
    bodies = [{"prompt": options.prompt, "max_tokens": tokens, "seed": i} for i in range(count)]
    begun = time.perf_counter()
    streams(address, bodies[:1])
    one = tokens / (time.perf_counter() - begun)
    with watching(address) as health:
        begun = time.perf_counter()
        texts = streams(address, bodies)
        rate = count * tokens / (time.perf_counter() - begun)
    streams(address, [{"max_tokens": 10_000, "seed": i} for i in range(200)], patience=0.5)
    begun = time.perf_counter()
    streams(address, [{"max_tokens": 10, "seed": 0}])
    answered = time.perf_counter() - begun
    prompts = [
        {"prompt": options.prompt, "seed": i, "index": 0, "max_new_tokens": tokens}
        for i in range(count)
    ]
    begun = time.perf_counter()
    alone = [made.text for made in generator.generate_many(prompts)]
    many = count * tokens / (time.perf_counter() - begun)
    firsts = sorted(first for _, first in texts)
    return {
        "one_stream_tokens_per_second": one,
        "tokens_per_second": rate,
        "generate_many_tokens_per_second": many,
        "ratio_to_one_stream": rate / one,
        "ratio_to_generate_many": rate / many,
        "first_text_ms_median": 1000 * statistics.median(firsts),
        "first_text_ms_p99": 1000 * firsts[int(0.99 * (count - 1))],
        "health_ms_median": 1000 * statistics.median(health),
        "health_ms_max": 1000 * max(health),
        "answer_after_200_left_ms": 1000 * answered,
        "different_texts": sum(a != b for (a, _), b in zip(texts, alone, strict=True)),
    }


def streams(
    address: Address, bodies: list[dict[str, Any]], patience: float = 600
) -> list[tuple[str, float]]:
    """The texts of concurrent streams, and the seconds until each began; or as much as came within
    `patience` seconds, when all connections are closed.

    Events are parsed after the last has come: a client library costs more than the server.
    """
    answers: list[list[bytes]] = [[] for _ in bodies]
    begun, firsts = [0.0] * len(bodies), [0.0] * len(bodies)
    end = time.perf_counter() + patience
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as waiting:
        for i, body in enumerate(bodies):
            begun[i] = time.perf_counter()
            connection = stack.enter_context(socket.create_connection(address))
            connection.sendall(request({**body, "stream": True}))
            waiting.register(connection, selectors.EVENT_READ, i)
        while waiting.get_map() and time.perf_counter() < end:
            for key, _ in waiting.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                part = key.fileobj.recv(1 << 16)
                answers[key.data].append(part)
                if not firsts[key.data] and b"data: {" in part:
                    firsts[key.data] = time.perf_counter() - begun[key.data]
                if not part:
                    waiting.unregister(key.fileobj)
    return [(text_of(b"".join(parts)), first) for parts, first in zip(answers, firsts, strict=True)]


def request(body: dict[str, Any]) -> bytes:
    """A request for a text."""
    data = json.dumps(body).encode()
    return (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)
    )


def text_of(answer: bytes) -> str:
    """The text of a stream; a line that is cut off does not count."""
    events = re.findall(rb"^data: (\{.*\})$", answer, re.MULTILINE)
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


@contextlib.contextmanager
def watching(address: Address) -> Iterator[list[float]]:
    """The seconds of GET /health, again and again in another process; there once the block ends."""
    taken: list[float] = []
    own, other = multiprocessing.Pipe()
    watcher = multiprocessing.get_context("spawn").Process(target=watch, args=(address, other))
    watcher.start()
    try:
        own.recv()
        yield taken
    finally:
        own.send(None)
        taken += own.recv()
        watcher.join()


def watch(address: Address, control: Connection) -> None:
    """Ask GET /health every 10 milliseconds on one connection until told to stop."""
    taken = []
    with socket.create_connection(address) as connection:
        control.send(None)
        while not control.poll(0.01):
            begun = time.perf_counter()
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"ok"}'):
                answer += connection.recv(1 << 16)
            taken.append(time.perf_counter() - begun)
    control.send(taken)


@contextlib.contextmanager
def serving(run: Path) -> Iterator[Address]:
    """The address of a server of the run."""
    line = [sys.executable, "-m", "textgen", "serve", str(run), "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as server:
        try:
            found = re.search(r"http://([\d.]+):(\d+)", server.stderr.readline())
            yield found[1], int(found[2])
        finally:
            server.terminate()


if __name__ == "__main__":
    raise SystemExit(main())
