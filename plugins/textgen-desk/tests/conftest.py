"""A run of a small network, and desks as users start them."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest
import uvicorn

# Before torch is loaded: on busy cores, small matrices take longest where threads share them.
os.environ["OMP_NUM_THREADS"] = "1"

import textgen
from textgen_desk.app import create_app
from textgen_desk.desk import Desk

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
    """A `textgen desk` process; it has to end by SIGTERM."""
    line = [sys.executable, "-m", "textgen", "desk", "--port", "0", *map(str, arguments)]
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


@contextlib.contextmanager
def open_desk(folder, **options):
    """A client of a desk in this process."""
    desk = Desk(folder.resolve(), offered=["english"], **options)
    with running(create_app({}, desk=desk)) as (host, port):
        try:
            with httpx2.Client(base_url=f"http://{host}:{port}", timeout=20) as client:
                yield client
        finally:
            desk.stop_all()


def strict(answer):
    """The JSON of an answer, which every browser can read."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(answer.content.decode(), parse_constant=refuse)


def state(client, name="ravens"):
    answer = client.get(f"/desk/runs/{name}")
    assert answer.status_code == 200, answer.text
    return strict(answer)


def act(client, action, run="ravens", **body):
    return client.post(f"/desk/runs/{run}/{action}", json=body)


def settled(client, *statuses, name="ravens"):
    """The state of a run, once its status is one of these, or a command has failed."""
    found = []

    def is_settled():
        found[:] = [state(client, name)]
        return found[0]["status"] in statuses or found[0]["failed"]

    until(is_settled, 120)
    return found[0]


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


# The page, in Chromium ----------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, url):
    """Opens the page in a fresh profile; at the end, no page may have written an error to its
    console.
    """
    contexts, errors = [], []

    def opened(address=url, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda said: said.type == "error" and errors.append(said.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


def write(page, text, **numbers):
    for name, value in numbers.items():
        page.fill(f"#{name}", str(value))
    page.focus("#text")
    page.keyboard.type(text)


def eventually(page, check, expected=None):
    for _ in range(200):
        if check():
            return
        page.wait_for_timeout(50)
    assert check(), (page.text_content("#text"), page.text_content("#status"), expected)


def wait_for_text(page, text):
    eventually(page, lambda: page.text_content("#text") == text, text)


def wait_for_end(page):
    eventually(page, lambda: page.text_content("#continue") == "Continue")


@pytest.fixture
def noisy(browser):
    """Opens the page where requests may fail, of which browsers write to the console."""
    with browser.new_context() as context:

        def opened(address):
            page = context.new_page()
            page.goto(address)
            return page

        yield opened
