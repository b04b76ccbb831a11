"""Measures how long requests hold up the event loop of `textgen serve`: such as make much work, or
are made to.

    python benchmarks/stalls.py RUN [NAME...]

For each request, or each whose name has one of the words, prints for how many milliseconds the loop
stood still at most, by the clock and by the CPU time of the process meanwhile, which other programs
lengthen less; the seconds of the request; and the beginning of the answer. Exits with status 1 if
it was more than 50 ms by the clock. The server runs in this process, the client in another.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from textgen_serve.app import create_app
from textgen_serve.protocol import BoundedProtocol

MOST = 50  # milliseconds
TEXT = "the " * 47_000  # near the limit of a prompt
IDS = [1] * 190_000
PROPERTIES = {f"key{i:04d}": {"type": "string", "maxLength": 40} for i in range(40_000)}
# So many of a thing, in a request to /v1/completions.
COMPLETIONS: dict[str, Any] = {
    "unknown parameters": {f"k{i}": i for i in range(200_000)},
    "200 unknown parameters": {f"temperatur{i}": i for i in range(200)},
    "unknown parameter of 4 MB": {"k" * 3_900_000: 1},
    "wrong ids in logit_bias": {"logit_bias": {str(i): 1 for i in range(200_000)}},
    "1,000 wrong ids in logit_bias": {"logit_bias": {str(i): 1 for i in range(9000, 10_000)}},
    "objects as logit_bias": {"logit_bias": [{}] * 900_000},
    "stop texts": {"stop": [f"s{i}" for i in range(200_000)]},
    "1,000 stop texts": {"stop": ["x" * 1000 + str(i) for i in range(1000)], "max_tokens": 5000},
    "stop text of 3 MB": {"stop": "ab" * 1_500_000},
    "prompts": {"prompt": ["a"] * 200_000},
    "ids": {"prompt": [1] * 900_000},
    "249,000 ids in lists": {"prompt": [IDS[:1000]] * 249, "max_tokens": 1},
    "prompt of 2 MB": {"prompt": "the " * 500_000},
    "prompt of 188,000 characters": {"prompt": TEXT, "max_tokens": 20},
    "the same 32 times": {"prompt": TEXT, "max_tokens": 2, "n": 32},
    "the same echoed 256 times": {"prompt": TEXT, "max_tokens": 0, "n": 256, "echo": True},
    "escapes": b'{"prompt": "%s"}' % (rb"\u0074" * 33_000),
    "log-probabilities": {"prompt": IDS, "max_tokens": 0, "echo": True, "logprobs": 5},
    "fewer log-probabilities": {
        "prompt": IDS[:16_000],
        "max_tokens": 0,
        "echo": True,
        "logprobs": 4,
    },
    "the same streamed": {"prompt": IDS[:16_000], "echo": True, "logprobs": 4, "stream": True},
    "many likeliest": {"prompt": IDS[:950], "max_tokens": 0, "echo": True, "logprobs": 100},
    "few and many likeliest": {"prompt": IDS[:40], "max_tokens": 0, "echo": True, "logprobs": 100},
    "ranks": {"prompt": IDS[:49_000], "max_tokens": 1, "prompt_logprobs": 0},
    "ranks of likeliest": {"prompt": IDS, "max_tokens": 1, "prompt_logprobs": 5},
    "n": {"n": 256, "max_tokens": 200},
    "n, streamed": {"n": 256, "max_tokens": 200, "stream": True},
    "n with log-probabilities": {"n": 256, "max_tokens": 200, "logprobs": 20},
    "n with fewer": {"n": 256, "max_tokens": 90, "logprobs": 3},
    "n with log-probabilities, streamed": {
        "n": 256,
        "max_tokens": 50,
        "logprobs": 100,
        "stream": True,
    },
    "n and long": {"n": 256, "max_tokens": 2000},
    "long": {"max_tokens": 100_000},
    "long, streamed with likeliest": {"max_tokens": 5000, "logprobs": 100, "stream": True},
    "nested quantifiers": {"regex": "(a+)+b", "max_tokens": 50},
    "nested repetitions": {"regex": "((a{1000}){1000}){1000}"},
    "many repetitions": {"regex": "([a-z]{1,500}){500}"},
    "alternatives": {"regex": "|".join(f"x{i}[a-z]{{1,50}}" for i in range(5000))},
    "regular expression of 1 MB": {"regex": "a" * 1_000_000},
    "schema of 100 kB": {"json_schema": {"properties": dict([*PROPERTIES.items()][:2000])}},
    "schema of 2 MB": {"json_schema": json.dumps({"properties": PROPERTIES})},
    "schema with 249,000 values": {"json_schema": {"enum": [*range(249_000)]}},
    "deep JSON": b"[" * 1_900_000 + b"]" * 1_900_000,
    "no JSON": b"[" * 100_000,
}
OTHERS: dict[str, tuple[str, Any]] = {
    "tokenize": ("/tokenize", {"prompt": TEXT, "return_token_strs": True}),
    "tokenize 3 MB": ("/tokenize", {"prompt": "the " * 900_000}),
    "detokenize": ("/detokenize", {"tokens": IDS}),
    "detokenize 249,000 ids": ("/detokenize", {"tokens": [1] * 249_000}),
    "next_tokens": ("/next_tokens", {"prompt": TEXT, "logprobs": 100}),
    "next_tokens after a text": ("/next_tokens", {"max_tokens": 20_000, "presence_penalty": 1}),
}


def post(path: str, body: Any, headers: bytes = b"") -> bytes:
    """A request with a body, JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\n%sContent-Length: %d\r\n\r\n%s"
        % (path.encode(), headers, len(data), data)
    )


def requests() -> dict[str, bytes]:
    """Each request by its name."""
    made = {name: post("/v1/completions", body) for name, body in COMPLETIONS.items()}
    made |= {name: post(path, body) for name, (path, body) in OTHERS.items()}
    chunked = post("/v1/completions", b"").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    short = post("/v1/completions", {"max_tokens": 1})
    return {
        **made,
        "chunks of one byte": chunked + b"1\r\n \r\n" * 600_000 + b"2\r\n{}\r\n0\r\n\r\n",
        "chunks of 16 bytes": chunked + (b"10\r\n" + b" " * 16 + b"\r\n") * 100_000,
        "trailers": chunked + b"2\r\n{}\r\n0\r\n" + b"a:\r\n" * 1_000_000 + b"\r\n",
        "trailer of 4 MB": chunked + b"2\r\n{}\r\n0\r\n" + b"a" * 4_000_000 + b":\r\n\r\n",
        "headers": post("/v1/completions", {}, b"a:\r\n" * 16_000),
        "more headers than fit": post("/v1/completions", {}, b"a:\r\n" * 60_000),
        "requests sent at once": short.replace(b"Connection: close\r\n", b"") * 5000 + short,
        "model with a long name": (
            b"GET /v1/models/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            % (b"%61" * 20_000)
        ),
    }


def main() -> int:
    """Send each request in turn; 1 where the event loop stood still for too long."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    return asyncio.run(measured(options.run, options.names))


async def measured(run: Path, names: list[str]) -> int:
    """Print the longest stall for each request."""
    worst = 0.0
    async with serving(run) as port:
        for name, request in requests().items():
            if names and not any(word in name for word in names):
                continue
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CLIENT, str(port)), stdin=-1, stdout=-1
            )
            assert client.stdout is not None
            await client.stdout.readline()  # it has started
            asked = asyncio.create_task(client.communicate(request))
            begun, longest, most_cpu = time.perf_counter(), 0.0, 0.0
            while not asked.done():
                before, cpu = time.perf_counter(), time.process_time()
                await asyncio.sleep(0.001)
                longest = max(longest, 1000 * (time.perf_counter() - before) - 1)
                most_cpu = max(most_cpu, 1000 * (time.process_time() - cpu))
            taken, answer = time.perf_counter() - begun, (await asked)[0].decode(errors="replace")
            worst = max(worst, longest)
            print(
                f"{name:36} {longest:7.1f} {most_cpu:7.1f} ms {taken:6.1f} s  {answer.strip()}",
                flush=True,
            )
    return int(worst > MOST)


@asynccontextmanager
async def serving(run: Path) -> AsyncIterator[int]:
    """The port of a server in this event loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app({"run": run})
    config = uvicorn.Config(app, log_config=None, access_log=False, http=BoundedProtocol, ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    gc.freeze()  # as `serve` does
    gc.set_threshold(10_000, 50, 1_000)
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving


# Sends what it reads, and prints how much came back and how that begins.
CLIENT = """
import socket, sys, threading
print(flush=True)
data = sys.stdin.buffer.read()
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def send():
    try:
        server.sendall(data)
    except OSError:
        pass
threading.Thread(target=send, daemon=True).start()
size, first = 0, b""
try:
    while part := server.recv(1 << 20):
        size, first = size + len(part), first if len(first) > 2000 else first + part
except OSError:
    pass
head, _, body = first.partition(b"\\r\\n\\r\\n")
print(head[9:12].decode(), f"{size:,}", body[:60])
"""

if __name__ == "__main__":
    raise SystemExit(main())
