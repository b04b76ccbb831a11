"""Many clients, clients that leave, and servers that stop."""

import asyncio
import gc
import json
import shutil
import signal
import socket
import threading
import time
import weakref
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from conftest import metric, running, serving, texts_at, train, until

import textgen
from textgen.contracts.decoders import DecoderFactory
from textgen_serve import app
from textgen_serve.guard import Access
from textgen_serve.limits import Limits

ENDLESS = {"prompt": "Once ", "max_tokens": 100_000, "time_limit": 60}


def raw(url, body, path="/v1/completions", key="none"):
    """A connection on which a request is sent."""
    host, _, port = url.rpartition("/")[2].partition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    data = json.dumps(body).encode()
    connection.sendall(
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        % (path.encode(), key.encode(), len(data), data)
    )
    return connection


@pytest.mark.parametrize(
    "body",
    [
        {"stream": True},
        {"stream": True, "n": 8},
        {"stream": True, "logprobs": 1},
        {},
        {"n": 8},
        {"prompt": "Once " * 38_000},
    ],
    ids=["stream", "n", "logprobs", "whole", "whole-n", "prefill"],
)
def test_a_client_that_leaves_frees_its_texts(server, body):
    left = metric(server.url, "textgen_clients_left_total")
    connection = raw(server.url, {**ENDLESS, **body})
    until(lambda: texts_at(server.url) == body.get("n", 1))
    if body.get("stream"):
        connection.recv(1000)
    connection.close()
    until(lambda: texts_at(server.url) == 0)
    assert metric(server.url, "textgen_clients_left_total") == left + 1  # no text came to its end


def test_scores_of_clients_that_have_left_end_are_counted_and_hold_nobody_up(run, monkeypatch):
    gate, calls, score = threading.Event(), [], DecoderFactory.score

    def waiting(factory, *given):
        calls.append(given)
        assert gate.wait(60)
        return score(factory, *given)

    monkeypatch.setattr(DecoderFactory, "score", waiting)
    body = {"prompt": "Once " * 4000, "max_tokens": 0, "echo": True, "logprobs": 0}
    with running(app.create_app({"ravens": run})) as (host, port), ExitStack() as stack:
        url = f"http://{host}:{port}"
        stack.callback(gate.set)
        with ExitStack() as clients:
            for _ in range(8):
                clients.enter_context(raw(url, body))
            until(lambda: texts_at(url) == 8 and calls)
        answer = httpx2.post(f"{url}/v1/completions", json={"max_tokens": 2}, timeout=20)
        assert answer.status_code == 200
        until(lambda: texts_at(url) == len(calls) < 6)  # those that wait for them end at once
        gate.set()
        until(lambda: texts_at(url) == 0)
    assert len(calls) < 6


def test_texts_that_are_tokenised_hold_up_no_completion_and_no_other_client(run, monkeypatch):
    gate, calls, tokenized = threading.Event(), [], app.tokenized

    def waiting(generator, text, *given):
        if text == "slow":
            calls.append(text)
            assert gate.wait(60)
        return tokenized(generator, text, *given)

    monkeypatch.setattr(app, "tokenized", waiting)
    server = app.create_app({"ravens": run}, access=Access(keys=("none", "other", "third")))
    with running(server) as (host, port), ExitStack() as stack:
        url = f"http://{host}:{port}"
        stack.callback(gate.set)
        with ExitStack() as clients:
            for _ in range(40):
                clients.enter_context(raw(url, {"prompt": "slow"}, "/tokenize"))
            until(lambda: texts_at(url) == 40 and calls)

            def post(path, prompt, key):
                headers = {"Authorization": f"Bearer {key}"}
                body = {"prompt": prompt, "max_tokens": 2}
                return httpx2.post(url + path, json=body, headers=headers, timeout=20)

            long = "Once " * 2000
            assert post("/v1/completions", long, "none").status_code == 200
            assert post("/tokenize", long, "other").json()["count"] == 10_000
            assert len(calls) == 2
            for key in ("other", "third") * 2:  # there are four threads for all clients
                clients.enter_context(raw(url, {"prompt": "slow"}, "/tokenize", key))
            until(lambda: texts_at(url) == 44 and len(calls) >= 4)
            assert post("/v1/completions", long, "none").status_code == 200
            assert len(calls) == 4
        # Clients have left: what runs, and what waits for a thread in its turn, is still counted.
        until(lambda: texts_at(url) == 6)
        gate.set()
        until(lambda: texts_at(url) == 0)


@pytest.mark.parametrize("body", [{"stream": True}, {}], ids=["stream", "whole"])
def test_a_client_that_closes_its_half_has_left(server, body):
    with raw(server.url, {**ENDLESS, **body}) as connection:
        until(lambda: texts_at(server.url) == 1)
        connection.shutdown(socket.SHUT_WR)
        until(lambda: texts_at(server.url) == 0)


def test_an_answer_does_not_wait_until_the_client_confirms_its_head(server):
    host, _, port = server.url.rpartition("/")[2].partition(":")
    taken = []
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        for _ in range(20):
            begun, answer = time.perf_counter(), b""
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not answer.endswith(b'"ok"}'):
                answer += connection.recv(1000)
            taken.append(time.perf_counter() - begun)
    assert sorted(taken)[10] < 0.03  # a client confirms after 40 milliseconds


def test_clients_that_leave_while_they_wait_harm_no_other(run, generator):
    request = {"prompt": "Once ", "max_tokens": 5, "seed": 1}
    with serving(run, "--texts", 400) as server, ExitStack() as stack:
        for _ in range(300):  # more than run at once, so that some wait
            stack.enter_context(raw(server.url, {**ENDLESS, "stream": True}))
        until(lambda: texts_at(server.url) == 300)
        stack.close()
        answer = httpx2.post(f"{server.url}/v1/completions", json=request, timeout=60).json()
        made = generator.generate("Once ", max_new_tokens=5, seed=1)
        assert answer["choices"][0]["text"] == made.text
        until(lambda: texts_at(server.url) == 0)


def test_too_many_texts_are_refused_and_later_ones_are_not(run):
    with (
        serving(run, "--texts", 4) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        connection = raw(server.url, {**ENDLESS, "stream": True, "n": 3})
        until(lambda: texts_at(server.url) == 3)
        refused = client.post("/v1/completions", json={"n": 2, "max_tokens": 2})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["type"] == "rate_limit_error"
        never = client.post("/v1/completions", json={"n": 5, "max_tokens": 2})
        assert (never.status_code, never.headers["x-should-retry"]) == (400, "false")
        assert client.post("/v1/completions", json={"max_tokens": 2}).status_code == 200
        connection.close()
        until(lambda: texts_at(server.url) == 0)
        assert client.post("/v1/completions", json={"n": 2, "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("wide", [{"beams": 4}, {"ban_phrase": ["Twice"]}], ids=["beam", "ban"])
def test_a_text_of_many_lanes_counts_as_many(run, wide):
    limits = Limits(texts=10)
    with running(app.create_app({"ravens": run}, limits=limits)) as (host, port):
        url = f"http://{host}:{port}"
        with httpx2.Client(base_url=url, timeout=60) as client, raw(url, {**ENDLESS, **wide}):
            lanes = 8 if "beams" in wide else 10  # two for a beam; a client has no more than ten
            until(lambda: texts_at(url) == lanes)
            refused = client.post("/v1/completions", json={"max_tokens": 2, "n": 3})
            assert refused.status_code == 429
            assert client.get("/ready").status_code == (200 if lanes < 10 else 503)
        until(lambda: texts_at(url) == 0)


def test_streams_end_in_peace_within_the_grace_and_new_connections_are_refused(run):
    with serving(run) as server:
        body = {"prompt": "Once ", "max_tokens": 4000, "stream": True, "logprobs": 0}
        connection = raw(server.url, body)
        with connection:
            received = connection.recv(1 << 16)
            server.process.send_signal(signal.SIGTERM)
            while part := connection.recv(1 << 16):
                received += part
        assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert server.process.wait(timeout=30) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(server.url)


def test_a_stream_beyond_the_grace_ends_with_an_error(run):
    with serving(run, "--grace", 0) as server:
        connection = raw(server.url, {**ENDLESS, "stream": True})
        with connection:
            received = connection.recv(1000)
            server.process.send_signal(signal.SIGTERM)
            while part := connection.recv(1 << 16):
                received += part
        assert b'data: {"error":' in received
        server.process.wait(timeout=20)


def test_a_reader_that_is_slow_is_waited_for_and_costs_no_memory(server):
    connection = raw(server.url, {**ENDLESS, "stream": True})
    connection.recv(10)
    rss = Path(f"/proc/{server.process.pid}/statm")
    before = int(rss.read_text().split()[1])
    asyncio.run(load(server.url, 20))
    assert int(rss.read_text().split()[1]) - before < 20_000  # pages of 4 KiB
    connection.close()
    until(lambda: texts_at(server.url) == 0)


def test_a_stream_that_waits_long_gets_comments(run, monkeypatch):
    monkeypatch.setattr(app, "_PING", 0.01)

    body = {"prompt": "Once " * 30_000, "max_tokens": 1, "stream": True}
    with running(app.create_app({"ravens": str(run)})) as (host, port):
        answer = httpx2.post(f"http://{host}:{port}/v1/completions", json=body, timeout=60)
    received = answer.text.splitlines()
    assert ": ping" in received
    assert received[-2] == "data: [DONE]"


async def load(url, count):
    """Send so many requests at once."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        body = {"prompt": "Once ", "max_tokens": 200}
        answers = await asyncio.gather(
            *(client.post("/v1/completions", json={**body, "seed": i}) for i in range(count))
        )
    assert {answer.status_code for answer in answers} == {200}


def test_a_run_that_is_replaced_is_loaded_without_a_lost_request(tmp_path):
    train(tmp_path / "run")
    request = {"prompt": "Once ", "max_tokens": 20, "seed": 1}
    with (
        serving(tmp_path / "run") as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):

        def fingerprint():
            answer = client.post("/v1/completions", json=request)
            assert answer.status_code == 200
            return str(answer.json()["system_fingerprint"])

        before = fingerprint()
        train(tmp_path / "other", seed=1)
        (tmp_path / "run").rename(tmp_path / "old")
        (tmp_path / "other").rename(tmp_path / "run")
        until(lambda: fingerprint() != before)
        made = textgen.load(tmp_path / "run").generate("Once ", max_new_tokens=20, seed=1)
        answer = client.post("/v1/completions", json=request).json()
        assert answer["choices"][0]["text"] == made.text
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        changed = 'textgen_run_changes_total{model="run",outcome="%s"} 1.0'
        until(lambda: changed % "removed" in client.get("/metrics").text)
        assert changed % "loaded" in client.get("/metrics").text
        assert client.get("/v1/models/run").is_success
    assert "was replaced" in server.errors
    assert "is gone" in server.errors


def test_a_run_is_loaded_once_under_all_its_names_and_again_after_its_publication(
    tmp_path, monkeypatch
):
    published, folder = train(tmp_path / "new"), train(tmp_path / "run", seed=1)
    shutil.copytree(published, folder / ".next-run")  # it is finished, and not yet in its place
    loads, load = list[weakref.ref[textgen.Generator]](), textgen.Engine.load

    def noted(*arguments, **options):
        made = load(*arguments, **options)
        loads.append(weakref.ref(made))
        return made

    monkeypatch.setattr(textgen.Engine, "load", noted)
    with (
        running(app.create_app({"a": folder, "b": folder})) as (host, port),
        httpx2.Client(base_url=f"http://{host}:{port}", timeout=60) as client,
    ):

        def card(name):
            return client.get(f"/v1/models/{name}").json()["textgen"]

        assert card("a")["best_loss"]
        gc.freeze()  # as `serve` does: nothing may need the collector to go
        shutil.rmtree(folder / ".next-run")
        names = ("model.safetensors", "tokenizer.json", "pipeline.toml", "run.json")
        for name in names:
            (published / name).replace(folder / name)
        until(lambda: len(loads) > 1)
        assert card("b")["checksum"] == card("a")["checksum"]
        until(lambda: loads[0]() is None)
        gc.unfreeze()
    assert len(loads) == 2
