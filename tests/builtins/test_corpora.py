"""What the corpora `file` and `story` read: files, folders, compressed files, documents, pages and
books.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from backports import zstd

from textgen import DOCUMENT_END, CorpusError, Engine, PipelineError, run
from textgen.documents import split_documents
from textgen_builtins.corpora.sources import in_reading_order

PIECE = (
    1 << 20
)  # files are read in pieces of a mebibyte; what lies across their border must not show


def read(path: Any, **options: Any) -> str:
    paths = [str(p) for p in path] if isinstance(path, list) else str(path)
    return "".join(Engine().read_corpus({"type": "file", "path": paths, **options}))


def documents_in(path: Path, **options: Any) -> list[str]:
    """The documents of files, each in one piece."""
    pieces = Engine().read_corpus({"type": "file", "path": str(path), **options})
    return ["".join(document) for document in split_documents(pieces)]


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes to a file below tmp_path."""
    return lambda name, data: fill(tmp_path, {name: data}) / name


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


def test_a_file_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second\n")
    (tmp_path / "a.txt").write_text("first\nand more")
    (tmp_path / "c.txt").write_text("")
    assert documents_in(tmp_path, documents="file") == ["first\nand more", "second\n"]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_is_a_document_and_an_empty_one_is_none(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(
        b"one\r\ntwo\n\n \n" + "drei\u2028vier".encode() + end.encode()
    )
    assert documents_in(tmp_path / "a.txt", documents="line") == [
        "one",
        "two",
        " ",
        "drei\u2028vier",
    ]


def test_lines_may_be_longer_than_pieces_and_are_not_gathered(tmp_path: Path) -> None:
    long = "a" * (3 * PIECE)
    (tmp_path / "a.txt").write_text(f"{long}\nshort\n{long}")
    assert documents_in(tmp_path / "a.txt", documents="line") == [long, "short", long]
    pieces = Engine().read_corpus(
        {"type": "file", "path": str(tmp_path / "a.txt"), "documents": "line"}
    )
    assert max(len(piece) for piece in pieces if piece is not DOCUMENT_END) <= PIECE


def test_json_lines(tmp_path: Path) -> None:
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
            "line 3 has no field 'text', but 'title', 'body'; see the option field",
        ),
        ('{"text": null}', "line 3: its field 'text' is of type NoneType, and must be a text"),
    ],
)
def test_wrong_json_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "good"}}\n\n{line}\n')
    with pytest.raises(CorpusError) as caught:
        documents_in(path, documents="jsonl")
    assert said in str(caught.value)
    assert caught.value.path == path


def test_a_line_that_is_too_long_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    limit = 16_777_216
    longest = json.dumps({"text": "a" * (limit - len('{"text": ""}'))})
    (tmp_path / "a.jsonl").write_text(f"{longest}\n{longest}")
    assert [len(text) for text in documents_in(tmp_path / "a.jsonl", documents="jsonl")] == [
        limit - 12
    ] * 2
    (tmp_path / "a.jsonl").write_text(f"{longest} ")
    with pytest.raises(CorpusError, match="longer than 16,777,216 characters"):
        documents_in(tmp_path / "a.jsonl", documents="jsonl")
    (tmp_path / "a.jsonl").write_text("[" + "[]," * (6 * PIECE))
    with pytest.raises(CorpusError, match="a line of it is longer than 16,777,216 characters"):
        documents_in(tmp_path / "a.jsonl", documents="jsonl")


def test_half_a_surrogate_pair_is_read_as_a_replacement_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "\ud83d\ude00 \ud83d"}')
    assert documents_in(tmp_path / "a.jsonl", documents="jsonl") == ["\U0001f600 \ufffd"]


# Folders ------------------------------------------------------------------------------------------


def test_a_folder_is_read_to_its_depth_without_what_is_hidden_or_no_text(tmp_path: Path) -> None:
    names = ("CH1.TXT", "ch2.md", "ch3.rst", "ch4/a.Txt.GZ", "ch4/b.html", "ch5.txt.zst")
    hidden = {
        ".notes.txt": b"no",
        ".git/a.txt": b"no",
        "ch4/.a.txt": b"no",
        "cover.jpg": b"no",
        "a.jsonl": b"no",
    }
    pack = {"gz": gzip.compress, "zst": zstd.compress}
    files = {
        name: pack.get(name.lower().rpartition(".")[2], bytes)(f"{name}\n".encode())
        for name in names
    }
    assert read(fill(tmp_path, {**files, **hidden})) == "".join(
        f"{name}\n" for name in sorted(names)
    )
    assert read(tmp_path, glob=".*.txt") == "no"
    assert read(tmp_path, glob="**/*.txt") == "CH1.TXT\n"


def test_a_run_says_once_what_a_folder_holds_and_what_it_skips(
    tmp_path: Path, tiny_pipeline: Callable[..., Any]
) -> None:

    text = b"the clock of the hall struck the hour.\n" * 40
    folder = fill(
        tmp_path / "texts",
        {"a.txt": text, "b.txt": text, "notes.docx": b"PK", "cover.jpg": b"", ".x": b""},
    )
    (folder / "lost.txt").symlink_to("nowhere.txt")
    console = io.StringIO()
    Engine().run(tiny_pipeline(corpus={"path": str(folder)}), console=console)
    assert console.getvalue().count("corpus") == 1
    assert (
        f"corpus {folder}: 2 files, 3.1 kB; skipped 3 (cover.jpg, lost.txt, notes.docx)\n"
        in console.getvalue()
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "it holds no file; see the option glob"),
        ({".a.txt": b"hidden"}, "it holds no file"),
        (
            {f"{n}.jpg": b"" for n in range(7)},
            "it holds 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more; see the option ",
        ),
        ({"a.JSONL": b"{}"}, 'it holds a.JSONL; set documents to "jsonl"'),
    ],
    ids=["empty", "hidden", "others", "JSON lines"],
)
def test_a_folder_without_a_text_says_what_it_holds_and_what_is_read(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(CorpusError) as raised:
        read(fill(tmp_path, files))
    assert raised.value.path == tmp_path
    assert said in str(raised.value)
    assert ".txt, .text, .md" in str(raised.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", Path("/dev/zero")):
        with pytest.raises(CorpusError, match="it is not a regular file"):
            read(path)


# Compressed files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_compressed_files_are_read_by_their_content_and_the_suffix_inside(
    tmp_path: Path, compress: Any
) -> None:
    line = json.dumps({"text": "the naïve clock"})
    fill(
        tmp_path,
        {
            "a.jsonl.gz": compress(f"{line}\n{line}".encode()),
            "a.txt": compress("café\n".encode("utf-16")),
        },
    )
    assert documents_in(tmp_path, documents="jsonl") == ["the naïve clock"] * 2
    assert read(tmp_path / "a.txt") == "café\n"
    (tmp_path / "b.html.zst").write_bytes(
        compress(b"<p>a &amp; b</p>") + compress(b"<p>c</p>")
    )  # members, one by one
    assert read(tmp_path / "b.html.zst") == "a & b\n\nc\n"


def test_a_file_that_expands_a_thousandfold_comes_in_pieces(tmp_path: Path) -> None:
    for path, compress in (
        (tmp_path / "a.txt.gz", gzip.compress),
        (tmp_path / "b.txt.zst", zstd.compress),
    ):
        path.write_bytes(compress(b"a" * (24 * PIECE)))
        assert path.stat().st_size < PIECE / 20
        sizes = [len(piece) for piece in Engine().read_corpus({"type": "file", "path": str(path)})]
        assert (sum(sizes), max(sizes)) == (24 * PIECE, PIECE)


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_a_compressed_file_that_is_damaged_or_cut_off_is_an_error(
    tmp_path: Path, compress: Any
) -> None:
    data = compress(b"the clock of the hall struck the hour" * 30)
    for damaged in (data[:-9], data + data[:20]):
        (tmp_path / "a.txt.gz").write_bytes(damaged)
        with pytest.raises(
            CorpusError, match=r"a\.txt\.gz: its compressed data is damaged or cut off: "
        ):
            read(tmp_path / "a.txt.gz", encoding="latin-1")


def test_without_a_library_for_zstandard_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt.zst").write_bytes(zstd.compress(b"text"))
    for name in ("backports", "backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CorpusError, match=r'pip install "textgen-engine\[zst\]"'):
        read(tmp_path / "a.txt.zst")


# Pages --------------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html><head><title>T</title><style>p {a: b}</style></head><body>
<h1>A  &lt;b&gt; &eacute;&#8364;</h1><p>One<br>two <b>bo</b>ld&nbsp;x
y</p><script>if (1 < 2) {"</p>"}</script><ul><li>first<li>second</ul><pre>  as
 it is</pre><!-- no --><table><tr><td>1<td>2<tr><td>3</table>a < b <![weird[x]]> &amp c</body>"""
SHOWN = "A <b> é€\n\nOne\ntwo bold\xa0x y\n\nfirst\nsecond\n\n  as\n it is\n\n1 2\n3\n\na < b & c\n"


def test_the_text_of_a_page(tmp_path: Path) -> None:
    fill(
        tmp_path, {"a.html": PAGE.encode(), "b.HTM": PAGE.encode("utf-16"), "c.txt": PAGE.encode()}
    )
    assert read(tmp_path / "a.html") == read(tmp_path / "b.HTM") == SHOWN
    assert read(tmp_path / "c.txt") == PAGE
    assert documents_in(tmp_path, glob="*.h*", documents="file") == [SHOWN] * 2


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<!",
        "<a ",
        "</",
        "<a b='",
        '<a ="',
        "<!--",
        "<script>",
        "<div>",
        "&",
        "&#",
        "&#1",
        "= <",
    ],
)
def test_a_page_is_read_in_time_linear_in_its_length(tmp_path: Path, unit: str) -> None:
    (tmp_path / "a.html").write_text(f"<p>text</p>{unit * (10**6 // len(unit))}")
    begun = time.process_time()
    assert read(tmp_path / "a.html").startswith("text\n")
    assert (
        time.process_time() - begun < 10
    )  # where each unit is looked for in all the rest, 40 and more


def test_a_page_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(b"<p>text" * (5 * PIECE))
    with pytest.raises(CorpusError, match="longer than 33,554,432 characters, the most of a page"):
        read(tmp_path / "a.html")


# Books of Project Gutenberg -----------------------------------------------------------------------

BOOK = """The Project Gutenberg eBook of A Book\r
\r
*** START OF {0} PROJECT GUTENBERG EBOOK A BOOK\r
OF TWO LINES ***\r
\r
\r
I\r
\r
It began. *** It ended.\r
\r
\r
End of the Project Gutenberg EBook of A Book, by Nobody\r
\r
*** END OF {0} PROJECT GUTENBERG EBOOK A BOOK ***\r
\r
License and donations.\r
"""


@pytest.mark.parametrize("word", ["THE", "THIS"])
def test_a_book_without_header_and_footer(tmp_path: Path, word: str) -> None:
    (tmp_path / "a.txt").write_bytes(BOOK.format(word).encode())
    assert read(tmp_path / "a.txt", gutenberg=True) == "I\n\nIt began. *** It ended.\n"
    assert read(tmp_path / "a.txt") == BOOK.format(word).replace("\r", "")


@pytest.mark.parametrize("missing", ["START", "END"])
def test_a_book_without_its_marks_is_an_error(tmp_path: Path, missing: str) -> None:
    (tmp_path / "a.txt").write_text(BOOK.format("THE").replace(f"*** {missing}", "***"))
    with pytest.raises(
        CorpusError, match=rf"no line \*\*\* {missing} OF THE PROJECT GUTENBERG EBOOK"
    ):
        read(tmp_path / "a.txt", gutenberg=True)


# Lines that are broken at a width -----------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 76])
def test_lines_of_paragraphs_are_joined(tmp_path: Path, width: int) -> None:
    story = "".join(Engine().read_corpus({"type": "story"})) * 15
    verse = "\n\nRoses are red,\nViolets are blue.\n\n    Indented\n\n"
    paragraphs = [*(" ".join(each.split()) for each in story.split("\n\n")), verse]
    broken = [textwrap.fill(each, width) for each in paragraphs[:-1]]
    (tmp_path / "a.txt").write_text("\n\n".join([*broken, verse]))
    assert (tmp_path / "a.txt").stat().st_size > PIECE
    assert read(tmp_path / "a.txt", wrapped_at=width) == "\n\n".join(paragraphs)


def test_lines_that_are_documents_are_not_joined(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\nb\n")
    with pytest.raises(PipelineError, match=r"corpus: wrapped_at joins lines"):
        read(tmp_path / "a.txt", wrapped_at=60, documents="line")


# One file that must be the one --------------------------------------------------------------------


def test_the_checksum_of_a_file(tmp_path: Path) -> None:
    import hashlib

    path = fill(tmp_path, {"a.txt": b"the clock"}) / "a.txt"
    right = hashlib.sha256(b"the clock").hexdigest()
    assert read(path, sha256=right.upper()) == "the clock"
    with pytest.raises(
        CorpusError, match=f"its SHA-256 is {right}, and option sha256 is {'0' * 64}"
    ):
        read(path, sha256="0" * 64)
    with pytest.raises(CorpusError, match="it is a folder, and sha256 is of one file"):
        read(tmp_path, sha256=right)
    with pytest.raises(PipelineError, match="path is a list"):
        "".join(Engine().read_corpus({"type": "file", "path": [str(path)], "sha256": right}))
    with pytest.raises(PipelineError, match="must be a SHA-256"):
        read(path, sha256="abc")
