"""Measures what `textgen serve` and its other clients bear.

    python benchmarks/endurance.py RUN --requests 10000 --seconds 20

Sends so many requests, each with a prompt and samplers of its own and every eighth with a form of
its own, and prints the memory of the server after each tenth of them. Then, for each kind of
request that may hold up others, sends some with one API key for so many seconds, while another key
asks for five tokens again and again: prints the longest that this takes, and the most memory. A
line of JSON each. The server is a process of its own, on Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import attrs

FIVE = {"prompt": "The door", "max_tokens": 5, "unknown_characters": "unknown"}
TEXTS: dict[str, Any] = {"n": 256, "max_tokens": 100_000}
LOOPS = {"prompt": "a " * 20_000, "dry_multiplier": 1, "max_tokens": 999}
ATTACKS: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "8 requests of 256 long texts": [TEXTS] * 8,
    "the same as streams that nobody reads": [{**TEXTS, "stream": True}] * 8,
    "DRY": [LOOPS] * 3,
    "forms": [{"max_tokens": 10_000, "regex": rf"[\s\S]{{{10_000 + i},}}"} for i in range(3)],
}
CHUNKED = (
    b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
)
TRAILER = b"a:\r\n" * 4000


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with serving(options.run) as server:
        different(server, options.requests)
    for name, bodies in ATTACKS.items():
        measure(options, name, [partial(hold, request(body, "a")) for body in bodies])
    measure(options, "trailers", [trailers] * 8)
    return 0


@attrs.frozen
class Server:
    """A server with the keys a and b."""

    port: int
    pid: int

    def memory(self) -> float:
        """MB of it in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def post(self, body: dict[str, Any], key: str) -> float:
        """The seconds that an answer takes."""
        begun = time.perf_counter()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as client:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
            client.request("POST", "/v1/completions", json.dumps(body), headers)
            answer = client.getresponse()
            content = answer.read()
            assert answer.status == 200, content
        return time.perf_counter() - begun


@contextlib.contextmanager
def serving(run: Path) -> Iterator[Server]:
    """A server of a run."""
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("a\nb\n")
        keys.flush()
        line = [sys.executable, "-m", "textgen", "serve", run, "--port", "0"]
        with subprocess.Popen(
            [*line, "--api-key-file", keys.name], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            found = re.search(r":(\d+)$", process.stderr.readline().strip())
            assert found
            server = Server(int(found[1]), process.pid)
            try:
                server.post(FIVE, "b")  # warm
                yield server
            finally:
                process.kill()


def different(server: Server, count: int) -> None:
    """Send different requests, and print the memory after each tenth."""
    sizes = []
    with ThreadPoolExecutor(8) as pool:
        for tenth in range(10):
            indices = range(tenth * count // 10, (tenth + 1) * count // 10)
            list(pool.map(lambda i: server.post(own(i), "b"), indices))
            sizes.append(round(server.memory(), 1))
    print(json.dumps({"different requests": count, "memory_mb": sizes}), flush=True)


def own(i: int) -> dict[str, Any]:
    """The request with a number: no other has its prompt, its samplers or its form."""
    body: dict[str, Any] = {"prompt": f"The door {i} " * (1 + i % 60), "max_tokens": 5, "seed": i}
    body |= {"temperature": 0.5 + i / 1e5, "top_p": 0.9 + i / 1e6, "unknown_characters": "unknown"}
    body |= {"repetition_penalty": 1 + i / 1e5, "dry_multiplier": 0.1 + i / 1e5}
    return body | ({"regex": rf"[a-z ]{{{2 + i % 5},{9 + i}}}"} if i % 8 == 0 else {})


def measure(options: argparse.Namespace, name: str, attacks: list[Callable[..., None]]) -> None:
    """Print what other clients wait and what the server holds while there are attacks."""
    with serving(options.run) as server:
        before, most, longest = server.memory(), 0.0, 0.0
        end = time.monotonic() + options.seconds
        for attack in attacks:
            threading.Thread(target=attack, args=(server, end)).start()
        while time.monotonic() < end:
            longest = max(longest, server.post(FIVE, "b"))
            most = max(most, server.memory())
        figures = {"others_ms": round(1000 * longest), "memory_mb": [round(before), round(most)]}
        print(json.dumps({name: figures}), flush=True)


def request(body: dict[str, Any], key: str) -> bytes:
    """A request as it is sent."""
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return (head + kind).encode() + data


def hold(data: bytes, server: Server, end: float) -> None:
    """Send a request and read nothing until a time of time.monotonic."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(data)
        time.sleep(max(0.0, end - time.monotonic()))


def trailers(server: Server, end: float) -> None:
    """Send trailers without end, on one connection after another."""
    while time.monotonic() < end:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", server.port)) as connection,
        ):
            connection.sendall(CHUNKED)
            while time.monotonic() < end:
                connection.sendall(TRAILER)


if __name__ == "__main__":
    raise SystemExit(main())
