"""What the corpora `file` and `story` read: files, folders, compressed files, documents, pages and
books.
"""

import gzip
import io
import json
import os
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from backports import zstd
from raising import raises

from textgen import DOCUMENT_END, CorpusError, Engine, PipelineError, run
from textgen.documents import split_documents
from textgen_builtins.corpora.sources import in_reading_order

PIECE = (
    1 << 20
)  # files are read in pieces of a mebibyte; what lies across their border must not show


def pieces_of(path, **options):
    paths = [str(p) for p in path] if isinstance(path, list) else str(path)
    return Engine().read_corpus({"type": "file", "path": paths, **options})


def read(path, **options):
    return "".join(pieces_of(path, **options))


def documents_in(path, **options):
    """The documents of files, each in one piece."""
    return ["".join(document) for document in split_documents(pieces_of(path, **options))]


def fill(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_a_list_is_read_in_its_order_with_a_line_break_where_one_is_missing(tmp_path):
    files = {"b.txt": b"first", "a.txt": "\ufeffsecond\n".encode(), "c.txt": b"", "d.txt": b"last"}
    fill(tmp_path, files)
    assert read([tmp_path / name for name in files]) == "first\nsecond\nlast\n"


def test_the_files_of_a_folder_have_one_order_on_every_system():
    names = ("A.txt", "B.txt", "Z/y.txt", "a/x.txt", "a.md", "b.txt")
    for flavour in (PurePosixPath, PureWindowsPath):
        folder = flavour("texts")
        files = [folder / name for name in names]
        assert in_reading_order(files[::-1], folder) == files


@pytest.mark.fault(16)
@pytest.mark.parametrize("before", [0, PIECE - 2, PIECE - 1, PIECE])
@pytest.mark.parametrize("end", [b"\r\nb", b"\rb", b"\r\r\n", b"\r", "é".encode(), "😀".encode()])
def test_nothing_shows_the_borders_of_pieces(file, before, end):
    file.write_bytes(b"a" * before + end)
    assert read(file) == "a" * before + end.decode().replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.fault(16)
def test_nul_emoji_and_combining_marks_survive_a_run(tiny_pipeline):
    text = "nul \0 emoji 👩\u200d🚀 marks e\u0301 a\u0323\u0301 \u0e33 end\n"
    tables = tiny_pipeline(text=text * 10, generate={"prompt": text, "max_new_tokens": 0})
    tokenizer = run(tables).generator.tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", ["missing.txt", "n" * 5000, "a.txt/below"])
def test_a_missing_file(file, name):
    file.write_text("a file, no folder")
    with raises(CorpusError, path=file.parent / name):
        read(file.parent / name)


def test_an_empty_file_is_refused(file, tiny_pipeline):
    file.touch()
    with pytest.raises(CorpusError):
        run(tiny_pipeline(corpus={"type": "file", "path": str(file)}))


@pytest.mark.parametrize(
    "option",
    [
        *({"encoding": name} for name in ("utf-9", "hex", "rot13", "undefined", "", "a\0b")),
        *({"glob": pattern} for pattern in ("", ".", "/etc/*", "../*.txt", "**.txt", "a\0b")),
    ],
)
def test_options_that_mean_nothing(file, option):
    file.write_text("text")
    with pytest.raises(PipelineError) as caught:
        read(file, **option)
    assert [fault.path for fault in caught.value.faults] == [f"corpus.{name}" for name in option]


def test_a_file_is_a_document(tmp_path):
    fill(tmp_path, {"b.txt": b"second\n", "a.txt": b"first\nand more", "c.txt": b""})
    assert documents_in(tmp_path, documents="file") == ["first\nand more", "second\n"]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_is_a_document_and_an_empty_one_is_none(file, end):
    file.write_bytes(f"one\r\ntwo\n\n \ndrei\u2028vier{end}".encode())
    assert documents_in(file, documents="line") == ["one", "two", " ", "drei\u2028vier"]


def test_lines_may_be_longer_than_pieces_and_are_not_gathered(file):
    long = "a" * (3 * PIECE)
    file.write_text(f"{long}\nshort\n{long}")
    assert documents_in(file, documents="line") == [long, "short", long]
    pieces = pieces_of(file, documents="line")
    assert max(len(piece) for piece in pieces if piece is not DOCUMENT_END) <= PIECE


def test_json_lines(tmp_path):
    texts = ["one\ntwo", "é\u2028", "x" * (2 * PIECE), ""]
    lines = [
        json.dumps({"body": text, "id": 3}, ensure_ascii=place % 2 == 0)
        for place, text in enumerate(texts)
    ]
    (tmp_path / "a.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    (tmp_path / "a.txt").write_text("no JSON")
    assert documents_in(tmp_path, documents="jsonl", field="body") == texts[:3]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a}', "line 3 is not JSON: Unterminated string starting at (column 10)"),
        ("[" * 100_000, "line 3 is not JSON"),
        ('"text"', "line 3 is not a JSON object"),
        (
            '{"title": "a", "body": "b"}',
            "line 3 has no text in a field 'text'; its fields are 'title', 'body'",
        ),
        ('{"text": null}', "line 3 has no text in a field 'text'; its fields are 'text'"),
    ],
)
def test_wrong_json_lines_are_named(file, line, said):
    file.write_text(f'{{"text": "good"}}\n\n{line}\n')
    with pytest.raises(CorpusError) as caught:
        documents_in(file, documents="jsonl")
    assert said in str(caught.value)
    assert caught.value.path == file


def test_a_line_that_is_too_long_is_refused_before_it_is_parsed(file):
    limit = 16_777_216
    longest = json.dumps({"text": "a" * (limit - len('{"text": ""}'))})
    file.write_text(f"{longest}\n{longest}")
    assert [*map(len, documents_in(file, documents="jsonl"))] == [limit - 12] * 2
    for text in (f"{longest} ", "[" + "[]," * (6 * PIECE)):
        file.write_text(text)
        with raises(CorpusError, path=file):
            documents_in(file, documents="jsonl")


def test_half_a_surrogate_pair_is_read_as_a_replacement_character(file):
    file.write_text(r'{"text": "\ud83d\ude00\r\n \ud83d"}')
    assert documents_in(file, documents="jsonl") == ["\U0001f600\n \ufffd"]


def test_a_folder_is_read_to_its_depth_without_what_is_hidden_or_no_text(tmp_path):
    names = ("CH1.TXT", "ch2.md", "ch3.rst", "ch4/a.Txt.GZ", "ch4/b.html", "ch5.txt.zst")
    run = ("runs/a/run.json", "runs/a/pipeline.toml", "runs/a/samples.txt")
    others = (".notes.txt", ".git/a.txt", "ch4/.a.txt", "cover.jpg", "a.jsonl", *run)
    pack = {"gz": gzip.compress, "zst": zstd.compress}
    files = {
        name: pack.get(name.lower().rpartition(".")[2], bytes)(f"{name}\n".encode())
        for name in names
    }
    fill(tmp_path, files | dict.fromkeys(others, b"no"))
    assert read(tmp_path).splitlines() == sorted(names)
    assert read(tmp_path, glob="**/*.TXT") == "CH1.TXT\n"


def test_a_run_says_once_what_a_folder_holds_and_what_it_skips(tmp_path, tiny_pipeline):
    text = b"the clock of the hall struck the hour.\n" * 40
    files = {"a.txt": text, "b.txt": text, "notes.pdf": b"PK", "cover.jpg": b"", ".x": b""}
    folder = fill(tmp_path / "texts", files)
    (folder / "lost.txt").symlink_to("nowhere.txt")
    console = io.StringIO()
    Engine().run(tiny_pipeline(corpus={"path": str(folder)}), console=console)
    said = console.getvalue()
    assert said.count("corpus") == 1
    assert f"corpus {folder}: 2 files, 3.1 kB; skipped 3 (cover.jpg, lost.txt, notes.pdf)\n" in said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "it holds no file; see the options glob and documents"),
        ({".a.txt": b"hidden"}, "it holds no file"),
        (
            {f"{n}.jpg": b"" for n in range(7)},
            "it holds 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more; see the options ",
        ),
        ({"a.JSONL": b"{}"}, "it holds a.JSONL; see the options glob and documents"),
    ],
)
def test_a_folder_without_a_text_says_what_it_holds_and_what_is_read(tmp_path, files, said):
    with pytest.raises(CorpusError) as raised:
        read(fill(tmp_path, files))
    assert raised.value.path == tmp_path
    assert said in str(raised.value)


@pytest.mark.unix
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", Path("/dev/zero")):
        with raises(CorpusError, path=path):
            read(path)


both = pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])


@both
def test_compressed_files_are_read_by_their_content_and_the_suffix_inside(tmp_path, compress):
    line = json.dumps({"text": "the naïve clock"})
    files = {
        "a.jsonl.gz": compress(f"{line}\n{line}".encode()),
        "a.txt": compress("café\n".encode("utf-16")),
        "b.html.zst": compress(b"<p>a &amp; b</p>") + compress(b"<p>c</p>"),  # members, one by one
    }
    fill(tmp_path, files)
    assert documents_in(tmp_path, documents="jsonl") == ["the naïve clock"] * 2
    assert read(tmp_path / "a.txt") == "café\n"
    assert read(tmp_path / "b.html.zst") == "a & b\n\nc\n"


@both
def test_a_file_that_expands_a_thousandfold_comes_in_pieces(file, compress):
    file.write_bytes(compress(b"a" * (24 * PIECE)))
    assert file.stat().st_size < PIECE / 20
    sizes = [len(piece) for piece in pieces_of(file)]
    assert (sum(sizes), max(sizes)) == (24 * PIECE, PIECE)


@both
def test_a_compressed_file_that_is_damaged_or_cut_off_is_an_error(file, compress):
    data = compress(b"the clock of the hall struck the hour" * 30)
    for damaged in (data[:-9], data + data[:20]):
        file.write_bytes(damaged)
        with raises(CorpusError, path=file):
            read(file, encoding="latin-1")


@both
def test_a_small_file_that_holds_too_much_is_refused(file, compress):
    file.write_bytes(compress(b"bomb\n" * (1 << 24)))
    with raises(CorpusError, path=file):
        read(file)


def test_without_a_library_for_zstandard_the_error_says_what_to_install(file, monkeypatch):
    file.write_bytes(zstd.compress(b"text"))
    for name in ("backports", "backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CorpusError, match=r"pip install backports\.zstd"):
        read(file)
