"""Folders, compressed files, pages and books: what the corpus `file` takes of them."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from textgen import CorpusError, Engine, PipelineError
from textgen.documents import split_documents

PIECE = 1 << 20


def read(path: Path, **options: Any) -> str:
    return "".join(Engine().read_corpus({"type": "file", "path": str(path), **options}))


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


# Folders --------------------------------------------------------------------------------------------------------------


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


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, {"a.txt": b"a", "closed/b.txt": b"b"})
    (tmp_path / "closed").chmod(0)
    try:
        if not os.access(tmp_path / "closed", os.R_OK):
            with pytest.raises(CorpusError, match="cannot be read: Permission denied"):
                read(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", Path("/dev/zero")):
        with pytest.raises(CorpusError, match="it is not a regular file"):
            read(path)


# Compressed files -----------------------------------------------------------------------------------------------------


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
    pieces = Engine().read_corpus({"type": "file", "path": str(tmp_path), "documents": "jsonl"})
    assert ["".join(text) for text in split_documents(pieces)] == ["the naïve clock"] * 2
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


# Pages ----------------------------------------------------------------------------------------------------------------

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
    pieces = Engine().read_corpus(
        {"type": "file", "path": str(tmp_path), "glob": "*.h*", "documents": "file"}
    )
    assert ["".join(text) for text in split_documents(pieces)] == [SHOWN] * 2


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


def test_a_number_of_millions_of_digits_is_no_character(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(f"<p>a&#{'1' * 2_000_000};b&#x{'1' * 2_000_000};c")
    assert read(tmp_path / "a.html") == "a\ufffdb\ufffdc\n"


def test_what_never_ends_takes_the_rest_of_a_page(tmp_path: Path) -> None:
    for start in ("<!-- ", "<script>", "<a href='"):
        (tmp_path / "a.html").write_text(f"<p>text{start}more")
        assert read(tmp_path / "a.html") == "text\n"


def test_a_page_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(b"<p>text" * (5 * PIECE))
    with pytest.raises(CorpusError, match="longer than 33,554,432 characters, the most of a page"):
        read(tmp_path / "a.html")


# Books of Project Gutenberg -------------------------------------------------------------------------------------------

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


# One file that must be the one ----------------------------------------------------------------------------------------


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
