"""Texts with a form of their own: pages, books, documents of word processors, lines of a width."""

import textwrap
import time
import zipfile

import pytest
from raising import raises
from test_corpora import PIECE, documents_in, fill, read

from textgen import CorpusError, Engine, PipelineError

PAGE = """<!DOCTYPE html><html><head><title>T</title><style>p {a: b}</style>
<script src='a'/></head><body><h1>A  &lt;b&gt; &eacute;&#8364;</h1><p>One<br>two <b>bo</b>ld&nbsp;x
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
    with raises(CorpusError, path=tmp_path / "a.html"):
        read(tmp_path / "a.html")


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
    file.write_bytes(2 * BOOK.format(word).encode())
    assert read(file, gutenberg=True).count("It began. *** It ended.\n") == 2


@pytest.mark.parametrize("missing", ["START", "END"])
def test_a_book_without_its_marks_is_an_error(file, missing):
    file.write_text(BOOK.format("THE").replace(f"*** {missing}", "***"))
    with raises(CorpusError, path=file) as caught:
        read(file, gutenberg=True)
    assert f"*** {missing}" in str(caught.value)


WORD = """<?xml version="1.0" encoding="UTF-8"?><w:document><w:body>
<w:p w:id="1"><w:pPr><w:tabs><w:tab w:val="left"/></w:tabs></w:pPr>
<w:r><w:t xml:space="preserve">“Tea &amp; </w:t></w:r><w:r><w:t>toast,”</w:t><w:tab/><w:t>he</w:t>
<w:br w:type="page"/><w:delText>never</w:delText><w:t>said.</w:t></w:r>
<mc:Choice><w:txbxContent><w:p><w:t>box</w:t></w:p></w:txbxContent></mc:Choice>
<mc:Fallback><w:p><w:t>box</w:t></w:p></mc:Fallback></w:p><w:p w:id="2"/>
<w:rPr><w:moveFrom w:id="3"/></w:rPr><w:moveFrom w:id="4"><w:t>gone</w:t></w:moveFrom>
<w:ruby><w:rt><w:t>gone</w:t></w:rt></w:ruby>
<w:tbl><w:tc><w:p w:rsidR="00A1"><w:proofErr w:type="spellStart"/><w:ins w:id="5"><w:r><w:t>A</w:t>
</w:r></w:ins><w:del w:id="6"><w:r><w:tab/><w:delText>no</w:delText></w:r></w:del><w:smartTag><w:r>
<w:rPr><w:del w:id="7"/></w:rPr><w:t> cell</w:t></w:r></w:smartTag><w:commentReference w:id="0"/>
</w:p></w:tc></w:tbl></w:body></w:document>"""


ODT = """<?xml version="1.0"?><office:document-content><style:style/><office:body><office:text>
<text:tracked-changes><text:p>gone</text:p></text:tracked-changes><!-- <text:p>no</text:p> -->
<text:h text:level="1">One</text:h><text:p text:name="a"/><text:p>“Tea  &amp;
<text:span>toast,”</text:span><text:tab/>he<text:s text:c="3"/>said.<text:line-break
/><draw:custom-shape draw:z="1"><text:p>box</text:p></draw:custom-shape>Yes<svg:desc
svg:a="b">box</svg:desc><text:ruby-text text:a="b">no</text:ruby-text><text:note>
<text:note-body><text:p>note</text:p></text:note-body>
</text:note></text:p>
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
    "in/b.xhtml": "<body><p>Two — <ruby>no<rp>(<rt>no<rp>)<rb>w<rt>no</ruby></p></body>",
    "in/n.xhtml": "<html><body><p>Contents</p></body></html>",
}


RTF = (
    rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Times;}}{\*\generator x;}\uc1 "
    rb"\ldblquote Tea\rdblquote\par caf\'e9 \u8212?\u-10179?\u-8695?\par}"
)
# Fonts with encodings, a character of two bytes, a fallback of two characters, a link, binary data
FIELDS = (
    rb"{\rtf1\ansi\deff0{\fonttbl{\f0 Times;}{\f1\fcharset204 A;}{\f2\fcharset128 B;}}"
    rb"{\info{\title no}}{\f1 \'cf\'f0\'e8} {\f2\'83A\'83\'5c} {\uc2 \u8212\'97x}"
    rb"{\field{\*\fldinst{HYPERLINK no}}{\fldrslt{ here}}}{\pict\bin5 {{{{{ 0af}"
    rb"{\footnote no}\tab a\_b\~c\{\cell d\row\sect}no"
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
        ("b.docx", {"word/document2.xml": WORD}, "“Tea & toast,”\the\nsaid.\n\nA cell\n"),
        ("a.odt", {"content.xml": ODT}, "One\n\n“Tea & toast,”\the   said.\nYes\n"),
        ("a.epub", EPUB, "One\n\nTea & toast\n\nTwo — now\n"),
        ("a.rtf", RTF, "“Tea”\ncafé —😉\n"),
        ("a.rtf", FIELDS, "При アソ — here\ta-b\xa0c{\nd\n"),
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
        ("a.docx", {"word/document.xml": WORD[:200]}, "Word"),
        ("a.docx", {"content.xml": WORD}, "Word"),
        ("a.odt", {"content.xml": ODT[:200]}, "OpenDocument"),
        (
            "a.odt",
            {"content.xml": f"<!DOCTYPE a>{ODT}".replace("<office:text>", "")},
            "OpenDocument",
        ),
        ("a.odt", {"content.xml": BOMB}, "more than"),
        ("a.epub", {**EPUB, "META-INF/container.xml": "<a/>"}, "EPUB"),
        ("a.epub", {name: EPUB[name] for name in [*EPUB][:3]}, "EPUB"),
        ("a.epub", {**EPUB, "in/b.xhtml": BOMB}, "more than"),
        ("a.epub", {**EPUB, "META-INF/encryption.xml": LOCK}, "encrypted"),
    ],
)
def test_hostile_and_damaged_documents_are_refused(tmp_path, name, parts, said):
    with pytest.raises(CorpusError, match=said):
        read(archive(tmp_path / name, parts))


def test_a_number_in_rich_text_that_is_no_character_is_refused(file):
    path = file.with_suffix(".rtf")
    path.write_bytes(rb"{\rtf1 \u99999999999?}")
    with raises(CorpusError, path=path):
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
    assert documents_in(file, documents="paragraph") == ["One,", "two", "Three", "Four **"]
    file.write_text(f"{'tea ' * PIECE}\nand more\n\n\nTwo")
    assert [len(each) for each in documents_in(file, documents="part")] == [4 * PIECE + 9, 3]


@pytest.mark.parametrize("width", [40, 76])
def test_lines_of_paragraphs_are_joined(file, width):
    story = "".join(Engine().read_corpus({"type": "story"})) * 15
    verse = "\n\nRoses are red, in a line that is longer than all others, which nobody has broken"
    verse += ", in none of the texts,\nViolets are blue.\n\n    Indented\n\n"
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
    with raises(PipelineError, argument="corpus"):
        read(file, wrapped_at=60, documents="line")
