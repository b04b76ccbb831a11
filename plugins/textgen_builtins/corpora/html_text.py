"""The text of an HTML page: what stands between its tags, a line for each block, without scripts
and styles.

The page is scanned once, as the tokenizer of the HTML standard does it: what never ends takes the
rest of the page. So the time is linear in its length, whatever a page holds, which html.parser of
the supported Pythons does not promise.
"""

from __future__ import annotations

import codecs
import contextlib
import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from textgen.errors import CorpusError
from textgen_builtins.corpora.encodings import AUTO, encoding_of_mark

_MAX_CHARACTERS: Final = 1 << 25  # characters of a page, which is held in memory
_HIDDEN_ELEMENTS: Final = re.compile("noscript|rp|rt|script|style|template|title")
_READING_END: Final = r"</r|<rb\b|</?(?:p|div|li|td)\b"  # its own tag may be left out
_LINES: Final = re.compile("br|caption|dd|div|dt|figcaption|li|option|tr")
_PARAGRAPHS: Final = re.compile(
    "address|article|aside|blockquote|body|center|details|dialog|dl|fieldset|figure|footer|form"
    "|h[1-6]|header|hr|legend|main|menu|nav|ol|p|pre|section|summary|table|ul"
)
_SPACE: Final = re.compile(r"[ \t\n\r\f]+")
# A comment, a declaration, or a tag with its attributes. Possessive, so that no match is tried
# twice.
_MARKUP: Final = re.compile(
    r"""<!--(?:-?>|.*?(?:--!?>|\Z))
    |   <(?:[!?]|/(?![a-z]))[^>]*+>?+
    |   <(?P<end>/?)(?P<tag>[a-z][^\s/>]*+)(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+>?+""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# Those of the Encoding Standard (WHATWG) but for UTF-8 and UTF-16, as Python names them.
_CHARSETS: Final = re.compile(
    r"ascii|big5(hkscs)?|cp(866|874|932|949|125[0-8])|euc_(jp|kr)|gb(18030|2312|k)|iso2022_jp"
    r"|iso8859-\d+|koi8-[ru]|mac-(cyrillic|roman)|shift_jis"
)
_LONG_NUMBER: Final = re.compile(
    r"&#[0-9]{9,}+;?"
)  # of no character; int() refuses thousands of digits
_DECLARED_ENCODING: Final = re.compile(
    rb"""<(?:meta[^>]+charset|\?xml[^>]+encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)


def encoding_of_page(beginning: bytes) -> str:
    """The encoding that a page declares; "auto" if its beginning is UTF-8 or has a mark, or it is
    none of those of pages.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        found = None if encoding_of_mark(beginning) else _DECLARED_ENCODING.search(beginning[:4096])
        with contextlib.suppress(LookupError, ValueError):
            name = codecs.lookup(found[1].decode()).name if found else AUTO
            if _CHARSETS.fullmatch(name):
                return "cp1252" if name in ("ascii", "iso8859-1") else name  # as browsers do
    return AUTO


def text_of_html(pieces: Iterable[str], path: Path) -> Iterator[str]:
    """The text of a page. Raises CorpusError where it is too long to be held in memory."""
    held, length = [], 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length > _MAX_CHARACTERS:
            raise CorpusError(
                f"it is longer than {_MAX_CHARACTERS:,} characters, the most of a page", path
            )
    page = "".join(held)
    text, at = _Text(), 0
    while found := _MARKUP.search(page, at):
        text.add(page[at : found.start()])
        at = found.end()
        if tag := found["tag"]:
            tag = tag.lower()
            text.separate(tag, ends=bool(found["end"]))
            is_closed = found["end"] or found[0].endswith("/>")  # as in XHTML
            if _HIDDEN_ELEMENTS.fullmatch(tag) and not is_closed:
                ends = _READING_END if tag in ("rp", "rt") else f"</{tag}"
                end = re.compile(ends, re.IGNORECASE).search(page, at)
                at = end.start() if end else len(page)
    text.add(page[at:])
    yield from text.parts
    if text.parts:
        yield "\n"


class _Text:
    """Collects the text of a page. Line breaks and spaces are written when text follows."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._breaks, self._space, self._pre, self._begins_pre = 0, False, 0, False

    def add(self, data: str) -> None:
        data = html.unescape(_LONG_NUMBER.sub("\ufffd", data))
        ends = False
        if not self._pre:
            data = _SPACE.sub(" ", data)
            self._space, ends = self._space or data.startswith(" "), data.endswith(" ")
            data = data.strip(" ")
        elif self._begins_pre:
            data = data.removeprefix("\n")
        self._begins_pre = False
        if data:
            if self.parts:
                self.parts.append("\n" * self._breaks or " " * self._space)
            self.parts.append(data)
            self._breaks, self._space = 0, ends

    def separate(self, tag: str, *, ends: bool) -> None:
        if tag == "pre":
            self._pre = max(0, self._pre + (-1 if ends else 1))
            self._begins_pre = not ends
        if _PARAGRAPHS.fullmatch(tag):
            self._breaks = 2
        elif _LINES.fullmatch(tag):
            self._breaks = min(2, self._breaks + 1) if tag == "br" else max(self._breaks, 1)
        elif tag in ("td", "th"):
            self._space = True
