"""The time that reading a file takes: in proportion to its length, whatever it holds."""

import contextlib
import gzip
import time
import zipfile

import pytest

from textgen import CorpusError, Engine
from textgen_builtins.starter.texts import style_of

MANY = 4_000  # units: where each is looked for in all the rest, they take a second or more
SLACK = 0.15  # seconds of a processor, for what does not depend on the length


def html(text):
    return f"<p>text</p>{text}".encode()


def rtf(text):
    return rb"{\rtf1 " + text.encode()


def docx(text):
    return {"word/document.xml": f"<w:document><w:p>{text}</w:p></w:document>"}


def odt(text):
    body = f"<office:text><text:p>{text}</text:p></office:text>"
    return {"content.xml": f"<office:document-content>{body}</office:document-content>"}


def odt_tag(text):
    return odt(f"<text:s {text}")


def container(text):
    return {"META-INF/container.xml": f"<rootfile {text}>"}


def package(text):
    return {
        "META-INF/container.xml": "<rootfile full-path='a.opf'/>",
        "a.opf": f"<package>{text}</package>",
    }


def spine(text):
    """A book with one item of long properties, to which each part of its spine refers."""
    item = f"<item id='a' href='{text}' media-type='text/html' properties='{text}'/>"
    return package(item + "<itemref idref='a'/>" * len(text))


def chapter(text):
    item = "<item id='a' href='a.html' media-type='text/html'/><itemref idref='a'/>"
    return package(item) | {"a.html": f"<p>{text}"}


def plain(text):
    return text.encode()


def book(text):
    mark = "*** {} OF THE PROJECT GUTENBERG EBOOK ***\n"
    return f"{mark.format('START')}{text}\n{mark.format('END')}".encode()


def compressed(text):
    return gzip.compress(text.encode())


TAGS = [
    *("<", "<!", "<a ", "</", "<a b='", '<a ="', "<!--", "<script>", "<div>", "<rt>", "<pre>"),
    *("&", "&#", "&#1", "&#x", "= <", " ", "a"),
]
GROUPS = [
    *("{\\field{\\*\\fldinst{", "{\\field{", "{\\fonttbl\\f1", "\\f1\\fcharset1 ", "{\\pict\\bin1"),
    *("{", "{}", "\\", "\\'", "\\'e9", "\\u1", "\\uc9\\u1", "\\a", "\\a1", "\\*", "a", "{\\f1 a}"),
]
NAMES = ["a", 'a="', "a='", "a =", "a ", "=", '"', "a:", "a=''", "&amp;"]
SIGNS = ["*", "* ", "*\n", " ", "\n", " \n", "a ", "a\n", "-\n", "*** ", "*** START "]
WORD = ["<w:t ", "<w:t>", "<w:del ", "<w:del>", "<w:p ", "<w:tab ", "<w:", "<", "&", "&#", "/"]
OPEN = [
    *(
        '<text:s text:c="1" ',
        "<text:p>",
        "<text:p ",
        "<text:note>",
        "<text:note ",
        "<!--",
        "<",
        " ",
    ),
    *("&", "&#", "/", "<text:s/>", "<svg:desc>"),
]
CASES = [
    *((".html", html, unit, {}) for unit in TAGS),
    *((".rtf", rtf, unit, {}) for unit in GROUPS),
    *((".docx", docx, unit, {}) for unit in WORD),
    *((".odt", odt, unit, {}) for unit in OPEN),
    (".odt", odt_tag, 'text:c="1" ', {}),
    *((".epub", container, unit, {}) for unit in NAMES),
    *((".epub", package, f"<item {unit}", {}) for unit in NAMES),
    *((".epub", package, unit, {}) for unit in ("<", "<item ", "<!--", "<a:", "<item id='a'/>")),
    (".epub", spine, "a ", {}),
    *((".epub", chapter, unit, {}) for unit in ("<", "<script>", "&")),
    *((".txt", plain, unit, {"documents": "part"}) for unit in SIGNS),
    *((".txt", plain, unit, {"documents": "line"}) for unit in ("a", "a\n")),
    *((".txt", plain, unit, {"wrapped_at": 40}) for unit in ("a", "a ", "a\n", " a-\n")),
    *((".txt", book, unit, {"gutenberg": True}) for unit in SIGNS),
    *((".jsonl", plain, unit, {"documents": "jsonl"}) for unit in ("[", '"', "1", '{"a":', "{}\n")),
    *((".txt.gz", compressed, unit, {}) for unit in ("a", "\r")),
]


def named(case):
    suffix, made, unit, options = case
    return f"{suffix} {made.__name__} {unit!r} {options}"


@pytest.fixture(scope="module")
def engine():
    return Engine()


def seconds(engine, path, content, options):
    """Processor time that it takes to read a file, which may be refused."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in content.items():
                archive.writestr(name, part)
    begun = time.process_time()
    with contextlib.suppress(CorpusError):
        for _ in engine.read_corpus({"type": "file", "path": str(path), **options}):
            pass
    return time.process_time() - begun


@pytest.mark.parametrize(("suffix", "made", "unit", "options"), CASES, ids=map(named, CASES))
def test_twice_the_file_takes_twice_the_time(engine, tmp_path, suffix, made, unit, options):
    path = tmp_path / f"a{suffix}"
    once = seconds(engine, path, made(unit * MANY), options)
    twice = seconds(engine, path, made(unit * 2 * MANY), options)
    assert twice < 3 * once + SLACK


@pytest.mark.parametrize("unit", [".", ".\u201d", "\u201c", '"', "\u00ab", "\u201e", "\n ", "a"])
def test_the_style_of_twice_the_text_takes_twice_the_time(unit):
    def spent(text):
        begun = time.process_time()
        style_of(text)
        return time.process_time() - begun

    assert spent(unit * 16 * MANY) < 3 * spent(unit * 8 * MANY) + SLACK
