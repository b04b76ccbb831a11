"""What the corpora `file` and `story` read: files, folders, compressed files, documents, pages and
books.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import textwrap
import time
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from backports import zstd

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


@pytest.fixture
def file(tmp_path):
    """A file to be written."""
    return tmp_path / "a.txt"


def test_a_list_is_read_in_its_order_with_a_line_break_where_one_is_missing(tmp_path):
    files = {"b.txt": b"first", "a.txt": "\ufeffsecond\n".encode(), "c.txt": b"", "d.txt": b"last"}
    fill(tmp_path, files)
    assert read([tmp_path / name for name in files]) == "first\nsecond\nlast\n"


@pytest.mark.fault(16)
def test_line_endings_become_lf(file):
    file.write_bytes(b"a\r\nb\rc\n\r\r\n\r")
    assert read(file) == "a\nb\nc\n\n\n\n"


def test_the_files_of_a_folder_have_one_order_on_every_system():
    names = ("A.txt", "B.txt", "Z/y.txt", "a/x.txt", "a.md", "b.txt")
    for flavour in (PurePosixPath, PureWindowsPath):
        folder = flavour("texts")
        files = [folder / name for name in names]
        assert in_reading_order(files[::-1], folder) == files


@pytest.mark.parametrize("before", [PIECE - 2, PIECE - 1, PIECE])
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
    with pytest.raises(CorpusError, match="cannot be read"):
        read(file.parent / name)


def test_an_empty_file_is_named(file, tiny_pipeline):
    file.touch()
    with pytest.raises(CorpusError) as caught:
        run(tiny_pipeline(corpus={"type": "file", "path": str(file)}))
    assert caught.value.path == file


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
            "line 3 has no field 'text', but 'title', 'body'; see the option field",
        ),
        ('{"text": null}', "line 3: its field 'text' is of type NoneType, and must be a text"),
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
        with pytest.raises(CorpusError, match="a line of it is longer than 16,777,216 characters"):
            documents_in(file, documents="jsonl")


def test_half_a_surrogate_pair_is_read_as_a_replacement_character(file):
    file.write_text(r'{"text": "\ud83d\ude00 \ud83d"}')
    assert documents_in(file, documents="jsonl") == ["\U0001f600 \ufffd"]


# Folders ------------------------------------------------------------------------------------------


def test_a_folder_is_read_to_its_depth_without_what_is_hidden_or_no_text(tmp_path):
    names = ("CH1.TXT", "ch2.md", "ch3.rst", "ch4/a.Txt.GZ", "ch4/b.html", "ch5.txt.zst")
    others = (".notes.txt", ".git/a.txt", "ch4/.a.txt", "cover.jpg", "a.jsonl")
    pack = {"gz": gzip.compress, "zst": zstd.compress}
    files = {
        name: pack.get(name.lower().rpartition(".")[2], bytes)(f"{name}\n".encode())
        for name in names
    }
    fill(tmp_path, files | dict.fromkeys(others, b"no"))
    assert read(tmp_path).splitlines() == sorted(names)
    assert read(tmp_path, glob=".*.txt") == "no"
    assert read(tmp_path, glob="**/*.txt") == "CH1.TXT\n"


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
        ({}, "it holds no file; see the option glob"),
        ({".a.txt": b"hidden"}, "it holds no file"),
        (
            {f"{n}.jpg": b"" for n in range(7)},
            ".txt, .text, .md",
        ),
        (
            {f"{n}.jpg": b"" for n in range(7)},
            "it holds 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more; see the option ",
        ),
        ({"a.JSONL": b"{}"}, 'it holds a.JSONL; set documents to "jsonl"'),
    ],
)
def test_a_folder_without_a_text_says_what_it_holds_and_what_is_read(tmp_path, files, said):
    with pytest.raises(CorpusError) as raised:
        read(fill(tmp_path, files))
    assert raised.value.path == tmp_path
    assert said in str(raised.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", Path("/dev/zero")):
        with pytest.raises(CorpusError, match="it is not a regular file"):
            read(path)


# Compressed files ---------------------------------------------------------------------------------


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
        with pytest.raises(CorpusError, match=r"a\.txt: its compressed data is damaged or cut off"):
            read(file, encoding="latin-1")


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_a_small_file_that_holds_too_much_is_refused(file, compress):
    file.write_bytes(compress(b"bomb\n" * (1 << 24)))
    with pytest.raises(CorpusError, match="expands to more than 100 times its size"):
        read(file)


def test_without_a_library_for_zstandard_the_error_says_what_to_install(file, monkeypatch):
    file.write_bytes(zstd.compress(b"text"))
    for name in ("backports", "backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CorpusError, match=r"pip install backports\.zstd"):
        read(file)


# Pages --------------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html><head><title>T</title><style>p {a: b}</style></head><body>
<h1>A  &lt;b&gt; &eacute;&#8364;</h1><p>One<br>two <b>bo</b>ld&nbsp;x
y</p><script>if (1 < 2) {"</p>"}</script><ul><li>first<li>second</ul><i>Oui</i>&nbsp;!<pre>
  as
 it is</pre><!-- no --><table><tr><td>1<td>2<tr><td>3</table>a < b <![weird[x]]> &amp c</body>"""
SHOWN = (
    "A <b> é€\n\nOne\ntwo bold\xa0x y\n\nfirst\nsecond\n\nOui\xa0!\n\n  as\n it is\n\n1 2\n3\n\n"
    "a < b & c\n"
)


def test_the_text_of_a_page(tmp_path):
    page = PAGE.encode()
    fill(tmp_path, {"a.html": page, "b.HTM": PAGE.encode("utf-16"), "c.txt": page})
    assert documents_in(tmp_path, documents="file") == [SHOWN, SHOWN, PAGE]


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
def test_a_page_is_read_in_time_linear_in_its_length(tmp_path, unit):
    (tmp_path / "a.html").write_text(f"<p>text</p>{unit * (10**6 // len(unit))}")
    begun = time.process_time()
    assert read(tmp_path / "a.html").startswith("text\n")
    assert (
        time.process_time() - begun < 10
    )  # where each unit is looked for in all the rest, 40 and more


def test_a_page_that_is_too_long_is_refused(tmp_path):
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
def test_a_book_without_header_and_footer(file, word):
    file.write_bytes(BOOK.format(word).encode())
    assert read(file, gutenberg=True) == "I\n\nIt began. *** It ended.\n"
    assert read(file) == BOOK.format(word).replace("\r", "")


@pytest.mark.parametrize("missing", ["START", "END"])
def test_a_book_without_its_marks_is_an_error(file, missing):
    file.write_text(BOOK.format("THE").replace(f"*** {missing}", "***"))
    said = rf"no line \*\*\* {missing} OF THE PROJECT GUTENBERG EBOOK"
    with pytest.raises(CorpusError, match=said):
        read(file, gutenberg=True)


# Word documents -----------------------------------------------------------------------------------

WORD = """<?xml version="1.0" encoding="UTF-8"?><w:document><w:body>
<w:p w:id="1"><w:pPr><w:tabs><w:tab w:val="left"/></w:tabs></w:pPr>
<w:r><w:t xml:space="preserve">“Tea &amp; </w:t></w:r><w:r><w:t>toast,”</w:t><w:tab/><w:t>he</w:t>
<w:br w:type="page"/><w:delText>never</w:delText><w:t>said.</w:t></w:r>
<mc:Choice><w:txbxContent><w:p><w:t>box</w:t></w:p></w:txbxContent></mc:Choice>
<mc:Fallback><w:p><w:t>box</w:t></w:p></mc:Fallback></w:p><w:p w:id="2"/>
<w:rPr><w:moveFrom w:id="3"/></w:rPr><w:moveFrom w:id="4"><w:t>gone</w:t></w:moveFrom>
<w:tbl><w:tc><w:p><w:r><w:t>A cell</w:t></w:r></w:p></w:tc></w:tbl></w:body></w:document>"""


ODT = """<?xml version="1.0"?><office:document-content><style:style/><office:body><office:text>
<text:tracked-changes><text:p>gone</text:p></text:tracked-changes><!-- <text:p>no</text:p> -->
<text:h text:level="1">One</text:h><text:p text:name="a"/><text:p>“Tea  &amp;
<text:span>toast,”</text:span><text:tab/>he<text:s text:c="3"/>said.<text:line-break/>Yes
<text:note><text:note-body><text:p>note</text:p></text:note-body></text:note></text:p>
<draw:frame><draw:text-box><text:p>box</text:p></draw:text-box></draw:frame>
</office:text></office:body></office:document-content>"""
EPUB = {
    "META-INF/container.xml": """<container><rootfiles><!-- <rootfile full-path="no"/> -->
<rootfile full-path='in/a.opf' media-type="x"/></rootfiles></container>""",
    "in/a.opf": """<opf:package><manifest>
<opf:item href="b.xhtml" id="b" media-type="application/xhtml+xml"/>
<opf:item id="a" href="../my%20a.xhtml" media-type="application/xhtml+xml"/>
<opf:item id="n" href="n.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<opf:item id="c" href="c.svg" media-type="image/svg+xml"/></manifest><spine><opf:itemref
idref="n"/><itemref idref="c"/><itemref idref="a"/><itemref idref="a"/><itemref idref="b"/></spine>
</opf:package>""",
    "my a.xhtml": "<html><title/><body><h1>One</h1><p>Tea &amp;\ntoast</p></body></html>",
    "in/b.xhtml": "<html><body><p>Two — now</p></body></html>",
    "in/n.xhtml": "<html><body><p>Contents</p></body></html>",
}
RTF = (
    rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Times;}}{\*\generator x;}\uc1 "
    rb"\ldblquote Tea\rdblquote\par caf\'e9 \u8212?\u-10179?\u-8695?\par}"
)
BOMB = "a bomb"


def archive(path, parts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in parts.items():
            made.writestr(name, text if text != BOMB else " " * (1 + (1 << 26)))
    return path


@pytest.mark.parametrize(
    ("name", "parts", "text"),
    [
        ("a.DOCX", {"word/document.xml": WORD}, "“Tea & toast,”\the\nsaid.\n\nA cell\n"),
        ("a.odt", {"content.xml": ODT}, "One\n\n“Tea & toast,”\the   said.\nYes\n"),
        ("a.epub", EPUB, "One\n\nTea & toast\n\nTwo — now\n"),
        ("a.rtf", RTF, "“Tea”\ncafé —😉\n"),
    ],
)
def test_documents_of_word_processors_and_books(tmp_path, name, parts, text):
    path = tmp_path / name
    if isinstance(parts, bytes):
        path.write_bytes(parts)
    else:
        archive(path, parts)
    assert read(path) == text
    assert read(tmp_path) == text  # as one of a folder


LOCK = '<e:CipherReference URI="in/b.xhtml"/>'


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        ("a.docx", {"word/document.xml": WORD[:200]}, "not a Word document"),
        ("a.docx", {"content.xml": WORD}, "not a Word document"),
        ("a.odt", {"content.xml": ODT[:200]}, "not an OpenDocument text"),
        (
            "a.odt",
            {"content.xml": f"<!DOCTYPE a>{ODT}".replace("<office:text>", "")},
            "not an Open",
        ),
        ("a.odt", {"content.xml": BOMB}, "its text takes more than"),
        ("a.epub", {**EPUB, "META-INF/container.xml": "<a/>"}, "not an EPUB book"),
        ("a.epub", {name: EPUB[name] for name in [*EPUB][:3]}, "not an EPUB book"),
        ("a.epub", {**EPUB, "in/b.xhtml": BOMB}, "its text takes more than"),
        ("a.epub", {**EPUB, "META-INF/encryption.xml": LOCK}, "it is encrypted"),
    ],
)
def test_hostile_and_damaged_documents_are_refused(tmp_path, name, parts, said):
    with pytest.raises(CorpusError, match=said):
        read(archive(tmp_path / name, parts))


def test_a_number_in_rich_text_that_is_no_character_is_refused(file):
    path = file.with_suffix(".rtf")
    path.write_bytes(rb"{\rtf1 \u99999999999?}")
    with pytest.raises(CorpusError, match="not Rich Text Format"):
        read(path)


def test_entities_of_an_archive_are_not_expanded(tmp_path):
    lol = '<!DOCTYPE a [<!ENTITY a "&b;&b;"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
    path = archive(tmp_path / "a.odt", {"content.xml": lol + ODT.replace("&amp;", "&a;")})
    assert read(path).startswith("One\n\n“Tea &a; toast")


def test_a_text_may_have_the_name_of_a_document(tmp_path):
    for suffix in ("docx", "odt", "epub", "rtf"):
        (tmp_path / f"a.{suffix}").write_text("Tea.")
        (tmp_path / f"~$a.{suffix}").write_bytes(b"PK\3\4")
        assert read(tmp_path / f"a.{suffix}") == "Tea."
    table = {"type": "file", "path": str(tmp_path)}
    assert "".join(Engine().read_corpus(table)) == "Tea.\n" * 4


def test_parts_between_signs_and_empty_lines(file):
    file.write_text("\n***\n\nOne,\n\ntwo\n\n* * *\nThree\n\n\n\nFour **\n----\n \n")
    assert documents_in(file, documents="part") == ["One,\n\ntwo", "Three", "Four **"]
    signs = documents_in(file, documents="part", empty_lines=0)
    assert signs == ["One,\n\ntwo", "Three\n\n\n\nFour **"]
    every = documents_in(file, documents="part", empty_lines=1)
    assert every == ["One,", "two", "Three", "Four **"]
    file.write_text(f"{'tea ' * PIECE}\nand more\n\n\nTwo")
    assert [len(each) for each in documents_in(file, documents="part")] == [4 * PIECE + 9, 3]


# Lines that are broken at a width -----------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 76])
def test_lines_of_paragraphs_are_joined(file, width):
    story = "".join(Engine().read_corpus({"type": "story"})) * 15
    verse = "\n\nRoses are red,\nViolets are blue.\n\n    Indented\n\n"
    paragraphs = [*(" ".join(each.split()) for each in story.split("\n\n")), verse]
    broken = [textwrap.fill(each, width) for each in paragraphs[:-1]]
    letter = "    " + "quite in earnest " * 20 + "yours"
    paragraphs += [letter, "    Ever,"]
    broken += [verse, textwrap.fill(letter, width, subsequent_indent="    "), paragraphs[-1]]
    file.write_text("\n\n".join(broken))
    assert file.stat().st_size > PIECE
    assert read(file, wrapped_at=width) == "\n\n".join(paragraphs)


def test_lines_that_are_documents_are_not_joined(file):
    file.write_text("a\nb\n")
    with pytest.raises(PipelineError, match="corpus: wrapped_at joins lines"):
        read(file, wrapped_at=60, documents="line")


# One file that must be the one --------------------------------------------------------------------


def test_the_checksum_of_a_file(file):
    file.write_text("the clock")
    right, wrong = hashlib.sha256(b"the clock").hexdigest(), "0" * 64
    assert read(file, sha256=right.upper()) == "the clock"
    for path, option, error, said in (
        (file, wrong, CorpusError, f"its SHA-256 is {right}, and option sha256 is {wrong}"),
        (file.parent, right, CorpusError, "it is a folder, and sha256 is of one file"),
        ([file], right, PipelineError, "path is a list"),
        (file, "abc", PipelineError, "must be a SHA-256"),
    ):
        with pytest.raises(error, match=said):
            read(path, sha256=option)
