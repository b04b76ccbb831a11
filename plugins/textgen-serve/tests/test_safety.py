"""Refusals of a server by default, and limits of its connections."""

import asyncio
import functools
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import httpx2
import pytest
from conftest import TEXT, running, serving, texts_at, train, until

from textgen.generation.scheduling.prompt_cache import PromptCache
from textgen_serve.app import create_app
from textgen_serve.errors import ClientGone
from textgen_serve.exchange import Endpoint
from textgen_serve.guard import Access
from textgen_serve.limits import Limits
from textgen_serve.protocol import BoundedProtocol

COMPLETION = {"prompt": "Once ", "max_tokens": 3, "seed": 1}


def test_pages_of_other_sites_are_refused(http, server):
    def status(**headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post("/v1/completions", json=COMPLETION, headers=names).status_code

    port = server.url.rpartition(":")[2]
    assert status() == 200
    assert status(host=f"localhost:{port}", origin=f"http://localhost:{port}") == 200
    assert status(host="evil.example") == 403  # a name that was made to point here
    assert status(host="") == 400
    for hosts in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as client:
            client.sendall(b"GET /health HTTP/1.1\r\n%s\r\n" % hosts)
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert status(origin="https://evil.example") == 403
    assert status(origin="null") == 403
    assert status(content_type="text/plain") == 415  # what a form can send
    answer = http.get("/v1/models", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_every_answer_has_the_security_headers(http):
    for path in ("/v1/models", "/gone", "/health"):
        headers = http.get(path, headers={"x-request-id": "mine"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "require-trusted-types-for 'script'" in headers["content-security-policy"]
        assert headers["x-request-id"] == "mine"
        assert "server" not in headers
    assert http.get("/gone").json()["error"]["type"] == "not_found_error"
    assert http.post("/gone", json={}).status_code == 404


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/completions", {"POST"}), ("/v1/models", {"GET", "HEAD"}), ("/health", {"GET", "HEAD"})],
)
@pytest.mark.parametrize("method", ["PUT", "OPTIONS"])
def test_other_methods_are_refused_with_the_ones_that_are_allowed(http, path, allowed, method):
    answer = http.request(method, path)
    assert (answer.status_code, {*answer.headers["allow"].split(", ")}) == (405, allowed)


def test_an_origin_that_is_allowed_may_ask(run):
    with serving(run, "--allow-origin", "null", "--allow-host", "box") as server:
        own = {"origin": "null", "host": "box"}
        asked = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, x-stainless-os",
        }
        url = f"{server.url}/v1/completions"
        preflight = httpx2.options(url, headers=own | asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "null"
        assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
        answer = httpx2.post(url, json=COMPLETION, headers=own)
        assert answer.headers["access-control-allow-origin"] == "null"
        other = {"origin": "http://other.example"}
        assert httpx2.get(f"{server.url}/v1/models", headers=other).status_code == 403


def test_places_are_those_of_the_text_that_was_sent(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    corpus = {"type": "file", "path": str(tmp_path / "book.txt")}
    tokenizer = {"type": "char", "lower_case": True}
    moved = train(tmp_path / "run", corpus=corpus, tokenizer=tokenizer)
    prompt = (
        "Once \u0130e\u0301 3 ravens flew over 2 hills, and none came back.\n"  # two unknown marks
    )
    body = {"prompt": prompt, "unknown_characters": "skip", "echo": True, "logprobs": 0}
    with running(create_app({"ravens": moved})) as (host, port):
        url = f"http://{host}:{port}/v1/completions"
        answer = httpx2.post(url, json={**body, "max_tokens": 2}, timeout=60).json()
        (choice,) = answer["choices"]
        given = choice["logprobs"]
        places = [*range(7), *range(8, len(prompt) + 2)]
        assert given["text_offset"] == places
        pairs = zip(places, given["tokens"], strict=True)
        assert all(choice["text"][place].lower()[0] == token for place, token in pairs)


def test_keys_share_no_states_of_prompts(run, monkeypatch):
    """By the time of an answer, nobody finds out what another has sent."""
    found, longest = list[int](), PromptCache.longest

    def noting(cache, keys):
        made = longest(cache, keys)
        found.append(made[0])
        return made

    monkeypatch.setattr(PromptCache, "longest", noting)
    body = {"prompt": "Once " * 190, "max_tokens": 2, "seed": 1}
    asked = [("a", ""), ("a", ""), ("b", ""), ("a", "mine"), ("b", "")]
    with running(create_app({"ravens": run}, access=Access(keys=("a", "b")))) as (host, port):
        for key, salt in asked:
            headers = {"authorization": f"Bearer {key}"}
            answer = httpx2.post(
                f"http://{host}:{port}/v1/completions",
                json={**body, "cache_salt": salt},
                headers=headers,
                timeout=60,
            )
            assert answer.status_code == 200
    assert found == [0, 3, 0, 0, 3]


def test_a_server_for_the_network_makes_a_key(run):
    with serving(run, "--host", "0.0.0.0") as server:
        key = server.line.split()[-1]
        port = server.url.rpartition(":")[2]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": key}):
                answer = client.post("/v1/completions", json=COMPLETION, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                is_given = "Bearer" in headers.get("authorization", "")
                assert ("not valid" in answer.json()["error"]["message"]) is is_given
            for path in ("/v1/models", "/metrics", "/tokenizer_info"):
                assert client.get(path).status_code == 401
            for path in ("/openapi.json", "/health", "/ready"):
                assert client.get(path).status_code == 200
            headers = {"authorization": f"Bearer {key}"}
            assert client.post("/v1/completions", json=COMPLETION, headers=headers).is_success


def test_keys_come_from_a_file_and_the_environment(run, tmp_path):
    (tmp_path / "keys").write_text("\ufeffone\n\ntwo\n")  # as Windows' Notepad writes it
    with serving(run, "--api-key-file", tmp_path / "keys", TEXTGEN_API_KEY="three") as server:

        def valid():
            return [
                key
                for key in ("one", "two", "three", "four")
                if httpx2.get(
                    f"{server.url}/v1/models", headers={"authorization": f"Bearer {key}"}
                ).is_success
            ]

        assert valid() == ["one", "two", "three"]
        (tmp_path / "keys").write_text("four\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "four" in valid())
        assert valid() == ["three", "four"]
        (tmp_path / "keys").unlink()
        server.process.send_signal(signal.SIGHUP)
        assert valid() == ["three", "four"]
    assert "cannot be read" in server.errors


def test_a_terminal_that_closes_ends_the_server(run):
    with serving(run) as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(60) == 0


@pytest.mark.parametrize("most", [8, 1000])  # the engine makes 256 at one time
def test_keys_take_turns_and_leave_half_of_the_places_to_the_others(run, most):
    app = create_app({"r": run}, access=Access(keys=("a", "b")), limits=Limits(texts=most))
    long = {"max_tokens": 100_000, "time_limit": 30, "n": most // 4}

    async def statuses():
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as client:

            async def status(key, **body):
                headers = {"authorization": f"Bearer {key}"}
                body = {**COMPLETION, **body}
                answer = await client.post("/v1/completions", json=body, headers=headers)
                return answer.status_code

            running = [asyncio.create_task(status("a", **long)) for _ in range(2)]
            url, half = f"http://{host}:{port}", most // 2
            await asyncio.to_thread(until, lambda: texts_at(url, "a") == half)
            found = [await status("a"), await status("a", n=half + 1)]
            found += {await status("b", n=2) for _ in range(10)}
            held = await asyncio.to_thread(texts_at, url, "a")
            for task in running:
                task.cancel()
            return [*found, held]

    with running(app) as (host, port):
        assert asyncio.run(statuses()) == [429, 400, 200, most // 2]


@pytest.mark.parametrize("keys", [(), ("a", "b")], ids=["no-keys", "keys"])
def test_a_request_of_all_lanes_stops_nobody(run, generator, keys):
    app = create_app({"r": run}, access=Access(keys=keys))
    greedy = {"prompt": "Once ", "beams": 128, "strategy": "beam", "max_tokens": 100_000}
    short = {"prompt": "Once ", "max_tokens": 5, "seed": 1}

    async def texts():
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as client:

            async def post(key, **body):
                headers = {"authorization": f"Bearer {key}"}
                return await client.post("/v1/completions", json=body, headers=headers)

            task = asyncio.create_task(post("a", **greedy))
            until_lanes = functools.partial(texts_at, f"http://{host}:{port}", "b")
            await asyncio.to_thread(until, lambda: until_lanes() == 256)
            answers = [await post("b", **short, index=index) for index in range(5)]
            assert not task.done()
            task.cancel()
            return [answer.json()["choices"][0]["text"] for answer in answers]

    with running(app) as (host, port):
        made = asyncio.run(asyncio.wait_for(texts(), 60))
    assert made == [
        generator.generate("Once ", max_new_tokens=5, seed=1, index=index).text
        for index in range(5)
    ]


def test_a_unix_socket_is_for_its_user_alone(run, tmp_path):
    path = tmp_path / "socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))  # by a server that is gone
    left.close()
    command = [sys.executable, "-m", "textgen", "serve", run, "--uds", path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert str(path) in process.stderr.readline()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url="http://localhost") as client:
            assert client.post("/v1/completions", json=COMPLETION).is_success
        process.terminate()
    assert not path.exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_tls(run, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    line += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*line, "-keyout", key, "-out", cert], check=True, capture_output=True)
    with serving(run, "--host", "localhost", "--tls-cert", cert, "--tls-key", key) as server:
        assert server.url.startswith("https://localhost:")
        done = subprocess.run(
            ["curl", "-sS", "--cacert", cert, f"{server.url}/v1/completions", "--json", '{"n": 1}'],
            capture_output=True,
            check=True,
        )
    assert b'"choices"' in done.stdout


class Quick(BoundedProtocol):
    receive_seconds = 0.3
    send_seconds = 0.3


@contextmanager
def quick_server(left):
    """An answer without end, on connections with short deadlines; `left` is set once its client is
    gone.
    """

    async def answer(exchange):
        async def write():
            await exchange.start(200, [])
            while True:
                await exchange.write(b"x" * 65536)
                await asyncio.sleep(0)  # once the client is gone, nothing else waits

        try:
            if exchange.scope["method"] == "POST":
                await exchange.body(Limits())
            await exchange.while_connected(write())
        except ClientGone:
            left.set()

    with running(Endpoint(answer), http=Quick, lifespan="off") as address:
        yield address


@pytest.mark.parametrize(
    "begin",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nA: b\r\n", b"\r\n\r\n"],
    ids=["nothing", "line", "headers", "blank"],
)
def test_a_connection_that_sends_no_whole_request_is_closed(begin):
    with (
        quick_server(threading.Event()) as address,
        socket.create_connection(address, timeout=10) as client,
    ):
        client.sendall(begin)
        assert client.recv(100) == b""


def test_a_body_that_does_not_come_ends_the_connection():
    left = threading.Event()
    with quick_server(left) as address, socket.create_connection(address, timeout=10) as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        client.sendall(head + b"Content-Length: 10\r\n\r\n123")
        assert client.recv(100) == b""
        assert left.wait(10)


def test_a_head_without_end_is_refused():
    with (
        quick_server(threading.Event()) as address,
        socket.create_connection(address, timeout=10) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000)
        assert client.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_long_head_in_one_packet_is_refused(server, before):
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nA: %s\r\n\r\n"
    answer = received(server, before + head % (b"a" * 70_000))
    assert b"HTTP/1.1 400" in answer
    assert answer.count(b'{"status":"ok"}') <= (1 if before else 0)
    many = b"a\r\n" + b"a: b\r\n" * 12_000  # headers that are mostly punctuation
    assert b"HTTP/1.1 400" in received(server, before + head % many)
    both = head.replace(b"/health", b"/health?" + b"a" * 40_000) % (b"a" * 40_000)
    assert b"HTTP/1.1 400" in received(server, before + both)
    answer = received(server, before + head % (b"a" * 60_000))
    assert answer.count(b'{"status":"ok"}') == (2 if before else 1)


@pytest.mark.parametrize("count", [10, 1000])
def test_few_requests_may_be_sent_before_an_answer(server, count):
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers = received(server, last.replace(b"Connection: close\r\n", b"") * (count - 1) + last)
    assert answers.count(b'{"status":"ok"}') == (10 if count == 10 else 0)
    assert answers.startswith(b"HTTP/1.1 200" if count == 10 else b"HTTP/1.1 400")


def test_a_body_of_too_many_chunks_or_trailers_is_refused(server):
    head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    end = b'10\r\n{"prompt": "On"}\r\n0\r\n\r\n'
    assert received(server, head + b"1\r\n \r\n" * 100 + end).startswith(b"HTTP/1.1 200")
    assert received(server, head + b"1\r\n \r\n" * 200_000 + end).startswith(b"HTTP/1.1 400")
    assert received(server, head + end[:-2] + b"a: b\r\n\r\n").startswith(b"HTTP/1.1 200")
    for trailer in (b"a:\r\n", b"a"):
        sent = head + end[:-2] + trailer * 400_000 + b":\r\n\r\n"
        assert received(server, sent).startswith(b"HTTP/1.1 400")


def received(server, data):
    """Everything that answers some bytes until the connection is closed."""
    host, _, port = server.url.rpartition("/")[2].partition(":")
    parts = []
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(data)
        with suppress(ConnectionResetError):  # where more was sent than the server read
            while part := client.recv(1 << 16):
                parts.append(part)
    return b"".join(parts)


def test_an_answer_that_nobody_reads_ends_the_connection():
    left = threading.Event()
    with quick_server(left) as address, socket.create_connection(address, timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert left.wait(10)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(http):
    def parts():
        for _ in range(100):
            yield b" " * (1 << 20)

    headers = {"content-type": "application/json"}
    for content in (b" " * (5 << 20), parts()):
        answer = http.post("/v1/completions", content=content, headers=headers)
        assert answer.status_code == 413, answer.text
        assert answer.json()["error"]["message"]


def test_runs_are_served_by_name(run, tmp_path):
    swept = tmp_path / "order=4"
    shutil.copytree(run, swept)
    with (
        serving(f"a/b={run}", f"c={swept}", swept) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        names = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert names == ["a/b", "c", "order=4"]
        assert client.get("/v1/models/a%2Fb").json()["id"] == "a/b"
        assert client.get("/v1/models/a/b").json()["id"] == "a/b"
        answer = client.post("/v1/completions", json={**COMPLETION, "model": "a/b"})
        assert answer.json()["model"] == "a/b"
        assert client.post("/v1/completions", json=COMPLETION).json()["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tls-cert", "x"], "belong together"),
        (["--host", "256.0.0.1"], "cannot listen"),
        (["--api-key-file", "none"], "cannot be read"),
        (["--uds", __file__], "no socket"),
        (["--tls-cert", __file__, "--tls-key", __file__], f"--tls-cert {__file__}"),
        (["--port", "65536"], "0<=x<=65535"),
    ],
)
def test_a_server_that_cannot_start_says_why(run, arguments, said):
    check_refused(str(run), *arguments, said=said)


def test_a_server_needs_a_run():
    check_refused(said="textgen serve runs/my-novel")


def check_refused(*arguments, said):
    line = [sys.executable, "-m", "textgen", "serve", *arguments]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False)
