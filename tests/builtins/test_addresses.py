"""A web address as a corpus: fetched once, whole, checked, and offline afterwards.

The server is a real one, here.
"""

import gc
import gzip
import http.server
import io
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from click.testing import CliRunner
from raising import raises

from textgen import BuildContext, CorpusError, Engine, PipelineError, load, run
from textgen.files.cache import downloads
from textgen_builtins.commands import cache
from textgen_builtins.corpora.plugin import BOOK
from textgen_builtins.starter.texts import look_at

TEXT = "the clock of the hall struck the hour, and the time traveller smiled.\n" * 40
DATA = TEXT.encode()


@attrs.define
class Answer:
    """What the server answers for a path.

    breaks_after   the number of bytes after which the connection breaks
    """

    body: bytes = DATA
    status: int = 200
    kind: str = "text/plain"
    breaks_after: int | None = None
    length: Any = None
    location: str = ""


@attrs.define
class Web:
    """A server on this machine, what it answers, and the paths that were asked of it."""

    root: str
    answers: dict[str, Answer] = attrs.field(factory=dict)
    requests: list[str] = attrs.field(factory=list)

    def serve(self, path, *body, **facts):
        """The address of a path that is now answered."""
        self.answers[path] = Answer(*body, **facts)
        return self.root + path


@pytest.fixture
def web(tmp_path, monkeypatch):
    """The server, and a cache that is empty."""
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(tmp_path / "cache"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            made.requests.append(self.path)
            answer = made.answers.get(self.path.partition("?")[0], Answer(b"none", 404))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", answer.length or len(answer.body))
            self.send_header("Location", answer.location)
            self.end_headers()
            self.wfile.write(answer.body[: answer.breaks_after])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    gc.collect()  # a connection that was left open is a warning in this test, not in a later one
    server.shutdown()
    server.server_close()
    thread.join()


def test_where_a_redirect_leads_is_said_before(web):
    web.serve("/there.txt")
    console = io.StringIO()
    context = BuildContext(folder=Path(), console=console)
    moved = web.serve("/a.txt", status=302, location=f"{web.root}/there.txt")
    corpus = Engine().build("corpus", {"type": "file", "path": moved}, context)
    assert "".join(corpus.read()) == TEXT
    assert console.getvalue() == f"reading {moved}\nreading {web.root}/there.txt\n"


def test_the_book_is_fetched_and_nothing_else_is_taken_for_it(web, book, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", web.root)  # which answers as a proxy does
    data = book.read_bytes()
    for wrong, kind, said in (
        (data[:-1000], "text/plain", "SHA-256"),
        (b"<html>Log in", "text/html", "web page"),
    ):
        web.serve(BOOK, wrong, kind=kind)
        with pytest.raises(CorpusError, match=said):
            list(Engine().read_corpus({"type": "time-machine"}))
        assert cached(tmp_path) == []
    web.serve(BOOK, data)
    for _ in range(2):
        assert sum(map(len, Engine().read_corpus({"type": "time-machine"}))) == 178_979
    assert web.requests == [BOOK] * 3


def read(path, **options):
    return "".join(Engine().read_corpus({"type": "file", "path": path, **options}))


def cached(tmp_path):
    """The names of the files in the cache, without their keys."""
    return sorted(path.name[64:] for path in tmp_path.glob("cache/**/*") if path.is_file())


def test_an_address_is_fetched_once_and_read_offline_afterwards(web, tmp_path):
    address = web.serve("/texts/clock.txt")
    assert [read(address), read(address)] == [TEXT, TEXT]
    assert web.requests == ["/texts/clock.txt"]
    assert cached(tmp_path) == ["-clock.txt", ".json"]
    [entry] = downloads().entries()
    assert (entry.facts["address"], entry.path.read_bytes()) == (address, DATA)


def test_addresses_files_and_folders_in_one_list(web, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    web.serve("/b.html.gz", gzip.compress(b"<p>b"), kind="application/gzip")
    paths = [str(tmp_path / "texts"), web.serve("/clock.txt"), f"{web.root}/b.html.gz"]
    assert read(paths) == f"a\n{TEXT}b\n"


@pytest.mark.parametrize(
    ("path", "kind", "body", "text"),
    [
        ("/", "text/html; charset=utf-8", b"<p>A page", "A page\n"),
        ("/35.txt.utf-8", "text/plain", b"<p>A text", "<p>A text"),
        ("/a%20b/%2e%2e?id=1&x=%C3%A9", "text/markdown", b"A text", "A text"),
        ("/\u00e9 x/\U0001f375.html", "text/plain", b"<b>A page", "A page\n"),
    ],
)
def test_what_an_address_gives_is_read_by_its_suffix_or_its_type(
    web, tmp_path, path, kind, body, text
):
    web.serve(quote(path.partition("?")[0], safe="/%"), body, kind=kind)
    assert read(web.root + path) == text
    assert len(cached(tmp_path)) == 2  # nothing is outside


@pytest.mark.parametrize(
    ("body", "answer", "said"),
    [
        (b"", {"status": 404}, "HTTP 404"),
        (b"\n<!DOCTYPE html>\n<p>Log", {"kind": "text/html"}, "web page"),
        (b"", {}, "empty file"),
        (DATA, {"length": 10**12}, "20 GB"),
        (DATA, {"breaks_after": 10}, f"10 of {len(DATA):,} bytes"),
        (b"", {"status": 299, "length": "9" * 5000}, "empty file"),
        (b"", {"status": 302, "location": "file:///etc/passwd"}, "fetched"),
        (b"", {"status": 302, "location": "ftp://127.0.0.1/a"}, "ftp:"),
        (b"", {"status": 302, "location": "/a.txt"}, "HTTP 302"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_kept(web, tmp_path, body, answer, said):
    address = web.serve("/a.txt", body, **answer)
    with pytest.raises(CorpusError, match=said) as raised:
        read(address)
    assert address in str(raised.value)
    assert str(raised.value).isprintable()
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/a.txt", "http://127.0.0.1:port/a.txt", "http://[::1/a.txt", "https"],
)
def test_a_server_that_is_not_there_is_said_in_a_line(web, address):
    if address == "https":
        address = web.serve("/a.txt").replace("http", "https")
    with pytest.raises(CorpusError) as raised:
        read(address)
    assert address in str(raised.value)
    assert str(raised.value).isprintable()


def test_an_address_of_another_kind_is_a_path_that_is_not_there():
    for address in ("ftp://127.0.0.1/a.txt", "file:///etc/passwd"):
        with raises(CorpusError, path=Path(address).absolute()):
            read(address)
    with raises(PipelineError, argument="corpus.path"):
        read("http://\0/")


def test_a_file_of_the_cache_that_was_changed_is_fetched_again(web, tmp_path):
    address, secret = web.serve("/a.txt"), tmp_path / "cache/secret.txt"
    read(address)
    secret.write_text("secret")
    [entry] = downloads().entries()
    time = secret.stat().st_mtime_ns
    outside = json.dumps({**entry.facts, "name": "../secret.txt", "size": 6, "time": time})
    for path, text in (
        (entry.path, "my own"),
        (entry.record, "[1"),
        (entry.record, "{}"),
        (entry.record, outside),
    ):
        path.write_text(text)
        assert read(address) == TEXT
    assert len(web.requests) == 5


def test_a_cache_that_cannot_be_written_is_an_error(web, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(CorpusError, match="TEXTGEN_CACHE_DIR"):
        read(web.serve("/a.txt"))


def test_a_run_fetches_and_a_loaded_run_never_does(web, tmp_path, tiny_pipeline):
    address = web.serve("/a.txt")
    path = run(tiny_pipeline(corpus={"path": address}, trainer={"length": "1 epoch"})).path
    assert address in (path / "pipeline.toml").read_text()
    assert web.requests.pop() == "/a.txt"
    next(tmp_path.glob("cache/**/*-a.txt")).unlink()
    cache_command("--clear")  # of the run's tokens
    generator = load(path)
    with pytest.raises(CorpusError, match=address):
        generator.copy_finder()
    assert web.requests == []
    read(address)
    assert generator.copy_finder().report(TEXT[:80]).longest == 80
    assert len(web.requests) == 1


def test_a_finished_run_whose_download_is_cleared_can_be_written_with(web, tmp_path, tiny_pipeline):
    address = web.serve("/a.txt")
    made = tiny_pipeline(corpus={"path": address}, trainer={"length": "1 epoch"})
    path = run(made).path
    assert f"  {address}\n" in cache_command("--downloads")
    assert cache_command("--clear", "--downloads").startswith("removed 1 download, ")
    assert list(downloads().entries()) == []
    assert list(tmp_path.glob("cache/downloads/*")) == []
    web.requests.clear()
    web.answers.clear()
    assert len(load(path).generate("", max_new_tokens=3).tokens) == 3
    assert web.requests == []
    for same in (made, path / "pipeline.toml", {**made, "generate": {"max_new_tokens": 3}}):
        with pytest.raises(CorpusError, match="`textgen generate RUN`"):
            run(same)
    elsewhere = {"corpus.path": web.serve("/b.txt")}
    assert run(made, elsewhere).outcome == "skipped"  # it is the same text
    assert web.requests[-1] == "/b.txt"


def cache_command(*arguments):
    done = CliRunner().invoke(cache.command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_init_takes_an_address_and_finds_a_book_of_project_gutenberg(web, tmp_path):
    begin, end = (f"*** {word} OF THE PROJECT GUTENBERG EBOOK ***\n" for word in ("START", "END"))
    address = web.serve("/ebooks/35.txt", f"Header\n{begin}{TEXT}{end}License".encode())
    facts = look_at(address, tmp_path)
    assert facts.corpus["path"] == address
    assert facts.corpus["gutenberg"] is True
    assert facts.size == len(TEXT)
    assert "Project Gutenberg" in facts.remarks[0]
