"""A run of a small network, and servers of it as users start them."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import httpx2
import pytest
import uvicorn

# Before torch is loaded: on busy cores, small matrices take longest where threads share them.
os.environ["OMP_NUM_THREADS"] = "1"

import textgen

TEXT = "".join(
    f"Once {n} ravens flew over {n * n % 7} hills, and none came back.\n" for n in range(60)
)


def train(output, seed=0, **tables):
    """A run directory."""
    textgen.train(
        corpus=tables.pop("corpus", TEXT),
        model={"type": "rnn", "cell": "gru", "hidden_size": 32},
        trainer={"type": "adamw", "length": "8 epochs", "learning_rate": 0.02},
        data={"window_length": 16},
        sampler=[{"type": "temperature", "temperature": 0.8}],
        seed=seed,
        output=output,
        **tables,
    )
    return output


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "ravens")


@pytest.fixture(scope="session")
def generator(run):
    return textgen.load(run)


@contextlib.contextmanager
def serving(*arguments, **environment):
    """A `textgen serve` process; it has to end by SIGTERM."""
    line = [sys.executable, "-m", "textgen", "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(
        line, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    server = Serving(process)
    try:
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        _, server.errors = process.communicate(timeout=60)
        assert "Traceback" not in server.errors, server.errors
        assert process.returncode == 0


class Serving:
    """A server that has started. `url` is its address, `line` what it printed first, `errors` what
    it printed afterwards, once it has ended.
    """

    errors = ""

    def __init__(self, process):
        self.process = process
        self.line = process.stderr.readline()
        found = re.search(r"https?://\S+", self.line)
        assert found, self.line + process.stderr.read()
        self.url = found[0].partition("/#")[0]


@contextlib.contextmanager
def running(app, **options):
    """An application in uvicorn, in a thread of this process. Gives its address."""
    config = uvicorn.Config(app, log_config=None, log_level="error", ws="none", **options)
    # With the protocol, or asyncio does not switch off its delay of small packets
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # or who connects before the server does so is refused
    server, address = uvicorn.Server(config), listener.getsockname()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def events_of(stream):
    """The events of a stream, which has to end with [DONE]."""
    lines = [line for line in stream.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def texts_at(url, key="none"):
    """The number of texts that a server generates or holds, by its metrics."""
    return metric(url, "textgen_texts", key)


def metric(url, name, key="none"):
    """The sum of a server's metric over all labels."""
    asked = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        page = answer.read().decode()
    lines = [
        line.split() for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    ]
    return sum(float(value) for *_, value in lines)


def until(condition, seconds=60):
    """Look again and again: each look is a request that takes time itself."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end


@pytest.fixture(scope="session")
def server(run):
    with serving(run) as started:
        yield started


@pytest.fixture(scope="session")
def http(server):
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def complete(http):
    """POST /v1/completions, and its JSON; a refusal fails the test."""

    def post(**body):
        answer = http.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post
