"""Where text comes from: what the corpora `file`, `story` and `time-machine` promise."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from textgen import CorpusError, Engine, PipelineError, run
from textgen_builtins.corpora.sources import in_reading_order

PIECE = (
    1 << 20
)  # files are read in pieces of a mebibyte; what lies across their border must not show
READ_BOOK = (
    "import textgen; print(sum(map(len, textgen.Engine().read_corpus({'type': 'time-machine'}))))"
)


def read(path: Any, **options: Any) -> str:
    paths = [str(p) for p in path] if isinstance(path, list) else str(path)
    return "".join(Engine().read_corpus({"type": "file", "path": paths, **options}))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes to a file below tmp_path."""

    def make(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return make


def test_one_file(write: Callable[..., Path]) -> None:
    assert read(write("a.txt", b"Zeit\nund Raum")) == "Zeit\nund Raum"


def test_a_list_is_read_in_its_order_with_a_line_break_where_one_is_missing(
    write: Callable[..., Path],
) -> None:
    files = [
        write("b.txt", b"first"),
        write("a.txt", b"second\n"),
        write("c.txt", b""),
        write("d.txt", b"last"),
    ]
    assert read(files) == "first\nsecond\nlast\n"


def test_a_folder_is_read_sorted_by_path_and_by_its_glob(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    write("texts/b.txt", b"b\n")
    write("texts/a/z.txt", b"z\n")
    write("texts/a.md", b"m\n")
    assert read(tmp_path / "texts") == "z\nm\nb\n"
    assert read(tmp_path / "texts", glob="*.md") == "m\n"


def test_a_relative_path_starts_at_the_pipelines_folder(
    textgen: Callable[..., Any],
    tiny_pipeline: Callable[..., Any],
    write_pipeline: Callable[..., Path],
    tmp_path: Path,
) -> None:
    pipeline = write_pipeline(tiny_pipeline(corpus={"path": "corpus.txt"}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shown = textgen("show", pipeline, cwd=elsewhere)
    assert f'path = "{tmp_path / "corpus.txt"}"' in shown.stdout


def test_a_folder_behind_a_symbolic_link(write: Callable[..., Path], tmp_path: Path) -> None:
    write("texts/a.txt", b"linked")
    (tmp_path / "link").symlink_to(tmp_path / "texts", target_is_directory=True)
    assert read(tmp_path / "link") == "linked"


def test_a_symbolic_link_that_leads_in_a_circle_is_not_followed(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    write("texts/a.txt", b"once")
    (tmp_path / "texts" / "again").symlink_to(tmp_path / "texts", target_is_directory=True)
    assert read(tmp_path / "texts") == "once"


@pytest.mark.fault(16)
def test_the_byte_order_mark_is_stripped(write: Callable[..., Path]) -> None:
    assert read(write("a.txt", "\ufeffa\ufeffb".encode())) == "a\ufeffb"


def test_every_file_of_several_loses_its_byte_order_mark(write: Callable[..., Path]) -> None:
    files = [write(name, "\ufeffx\n".encode()) for name in ("a.txt", "b.txt")]
    assert read(files) == "x\nx\n"


@pytest.mark.fault(16)
def test_line_endings_become_lf(write: Callable[..., Path]) -> None:
    assert read(write("a.txt", b"a\r\nb\rc\n\r\r\n\r")) == "a\nb\nc\n\n\n\n"


def test_the_files_of_a_folder_have_one_order_on_every_system() -> None:
    names = ("A.txt", "B.txt", "Z/y.txt", "a/x.txt", "b.txt")
    for flavour in (PurePosixPath, PureWindowsPath):
        folder = flavour("texts")
        files = [folder / name for name in reversed(names)]
        assert in_reading_order(files, folder) == [folder / name for name in names]


@pytest.mark.parametrize("before", [PIECE - 2, PIECE - 1, PIECE])
@pytest.mark.parametrize("end", [b"\r\nb", b"\rb", b"\r\r\n", b"\r", "é".encode(), "😀".encode()])
def test_nothing_shows_the_borders_of_pieces(
    write: Callable[..., Path], before: int, end: bytes
) -> None:
    text = read(write("a.txt", b"a" * before + end))
    assert text == "a" * before + end.decode().replace("\r\n", "\n").replace("\r", "\n")


def test_a_large_file_comes_in_pieces(write: Callable[..., Path]) -> None:
    path = write("a.txt", b"a" * (3 * PIECE))
    assert max(map(len, Engine().read_corpus({"type": "file", "path": str(path)}))) <= PIECE


def test_other_encodings(write: Callable[..., Path]) -> None:
    assert read(write("a.txt", "naïve €".encode("cp1252")), encoding="cp1252") == "naïve €"
    assert read(write("b.txt", "naïve €".encode("utf-16")), encoding="utf-16") == "naïve €"


@pytest.mark.fault(15)
@pytest.mark.parametrize("before", [0, 5, PIECE - 1, PIECE + 7])
def test_what_is_not_utf8_is_an_error_with_file_and_offset(
    write: Callable[..., Path], before: int
) -> None:
    path = write("a.txt", b"a" * before + b"\xe9 b")
    with pytest.raises(CorpusError, match=f"0xe9 at offset {before} .*option encoding") as caught:
        read(path, encoding="utf-8")
    assert caught.value.path == path
    assert str(path) in str(caught.value)


def test_a_file_cut_inside_a_character(write: Callable[..., Path]) -> None:
    with pytest.raises(CorpusError, match="byte 0xf0 at offset 2 "):
        read(write("a.txt", b"ab\xf0\x9f\x98"))


@pytest.mark.slow
def test_the_command_names_file_offset_and_option(
    textgen: Callable[..., Any],
    tiny_pipeline: Callable[..., Any],
    write_pipeline: Callable[..., Path],
    tmp_path: Path,
) -> None:
    pipeline = write_pipeline(tiny_pipeline())
    (tmp_path / "corpus.txt").write_bytes("déjà".encode("latin-1"))
    failed = textgen("run", pipeline, "--set", "corpus.encoding=utf-8", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (1, "")
    assert len(failed.stderr.splitlines()) == 1
    for part in (str(tmp_path / "corpus.txt"), "offset 1 ", "option encoding"):
        assert part in failed.stderr


@pytest.mark.fault(16)
def test_nul_emoji_and_combining_marks_survive_a_run(tiny_pipeline: Callable[..., Any]) -> None:
    text = "nul \0 emoji 👩\u200d🚀 marks e\u0301 a\u0323\u0301 \u0e33 end\n"
    generator = run(
        tiny_pipeline(text=text * 10, generate={"prompt": text, "max_new_tokens": 0})
    ).generator
    assert generator.tokenizer.decode(generator.tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", ["missing.txt", "n" * 5000, "file/below"])
def test_a_missing_file(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    write("file", b"a file, no folder")
    with pytest.raises(CorpusError, match="cannot be read"):
        read(tmp_path / name)


def test_a_folder_without_a_matching_file(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"no file in it matches.*it holds no file; see the option glob"
    ):
        read(tmp_path, glob="*.txt")


def test_an_empty_list(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="option path is an empty list"):
        read([])


@pytest.mark.parametrize(
    "option",
    [
        *({"encoding": name} for name in ("utf-9", "hex", "rot13", "undefined", "", "a\0b")),
        *({"glob": pattern} for pattern in ("", ".", "/etc/*", "**.txt", "a\0b")),
    ],
)
def test_options_that_mean_nothing(write: Callable[..., Path], option: dict[str, Any]) -> None:
    with pytest.raises(PipelineError) as caught:
        read(write("a.txt", b"text"), **option)
    assert [fault.path for fault in caught.value.faults] == [f"corpus.{next(iter(option))}"]


def test_the_story() -> None:
    story = "".join(Engine().read_corpus({"type": "story"}))
    assert len(story) >= 60_000
    assert story.isascii()


# The Time Machine -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy() -> Iterator[Callable[[int, bytes], dict[str, str]]]:
    """A real HTTP server on this machine that answers, as a proxy does, for the address of the book.

    `proxy(status, body)` sets the answer and gives the environment that sends the downloads of a process there.
    """
    answer = [404, b""]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.endswith("amazonaws.com/timemachine.txt")
            status, body = answer if found else (404, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def environment(status: int, body: bytes) -> dict[str, str]:
        answer[:] = [status, body]
        return {"http_proxy": f"http://127.0.0.1:{server.server_port}"}

    yield environment
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def time_machine(
    textgen: Callable[..., Any],
    tiny_pipeline: Callable[..., Any],
    write_pipeline: Callable[..., Path],
    tmp_path: Path,
) -> Callable[[dict[str, str]], Any]:
    """Run a pipeline on the book in a cache of its own, tmp_path / "cache"."""
    tables = tiny_pipeline()
    tables["corpus"] = {"type": "time-machine"}
    pipeline = write_pipeline(tables)

    def run_it(environment: dict[str, str]) -> Any:
        cache = {"TEXTGEN_CACHE_DIR": str(tmp_path / "cache")}
        return textgen("run", pipeline, cwd=tmp_path, env={**cache, **environment})

    return run_it


def left_in(cache: Path) -> list[str]:
    return sorted(path.name[64:] for path in cache.rglob("*") if path.is_file())


def test_without_a_network_one_line_says_so(
    time_machine: Callable[..., Any], tmp_path: Path
) -> None:
    failed = time_machine({"http_proxy": "http://127.0.0.1:9"})  # a port that nothing listens on
    assert failed.code == 1
    assert len(failed.stderr.splitlines()) == 1
    assert "timemachine.txt cannot be fetched: Connection refused" in failed.stderr
    assert left_in(tmp_path / "cache") == []


def test_the_book_is_downloaded_once(
    book: Path, python: Callable[..., Any], proxy: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    cache = {"TEXTGEN_CACHE_DIR": str(tmp_path / "deep" / "cache")}
    first = python("-c", READ_BOOK, cwd=tmp_path, env={**cache, **proxy(200, book.read_bytes())})
    assert (first.stdout, first.stderr, first.code) == ("178979\n", "", 0)
    assert left_in(tmp_path / "deep" / "cache") == ["-timemachine.txt", ".json"]
    again = python("-c", READ_BOOK, cwd=tmp_path, env={**cache, **proxy(500, b"")})
    assert again.stdout == "178979\n"


@pytest.mark.parametrize("damage", ["truncated", "longer", "page", "missing"])
def test_what_is_not_the_book_never_reaches_the_cache(
    book: Path,
    time_machine: Callable[..., Any],
    proxy: Callable[..., dict[str, str]],
    tmp_path: Path,
    damage: str,
) -> None:
    data = book.read_bytes()
    answers = {
        "truncated": (200, data[:-1000]),
        "longer": (200, data + b"\n"),
        "page": (200, b"<html>Log in to this network</html>"),
        "missing": (404, b"<html>Not found</html>"),
    }
    failed = time_machine(proxy(*answers[damage]))
    assert failed.code == 1
    said = {
        "missing": "cannot be fetched: HTTP 404 (Not Found)",
        "page": "gave a web page, not the file",
    }
    assert said.get(damage, "gave a file with SHA-256 ") in failed.stderr
    assert left_in(tmp_path / "cache") == []
