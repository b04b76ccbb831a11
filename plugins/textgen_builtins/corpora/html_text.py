"""The text of an HTML page: what stands between its tags, with a line for each block, and no scripts and styles."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from textgen.errors import CorpusError

_LONGEST: Final = 1 << 24  # characters of a tag, a comment or a script
_HIDDEN: Final = ("noscript", "script", "style", "template", "title")
_LINES: Final = ("br", "caption", "dd", "div", "dt", "figcaption", "li", "option", "tr")
_PARAGRAPHS: Final = (
    *(
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "dl",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
    ),
    *(
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "ul",
    ),
)
_SPACE: Final = re.compile(r"[ \t\n\r\f]+")
_DECLARED: Final = re.compile(
    rb"""<(?:meta[^>]+charset|\?xml[^>]+encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)


def declared_encoding(beginning: bytes) -> str:
    """The encoding that a page says it has, if Python knows it, or ""."""
    found = _DECLARED.search(beginning[:4096])
    try:
        name = codecs.lookup(found[1].decode()).name if found else ""
    except (LookupError, ValueError):
        return ""
    return "cp1252" if name == "iso8859-1" else name  # as browsers do (WHATWG, Encoding Standard)


def text_of_html(pieces: Iterable[str], path: Path) -> Iterator[str]:
    """The text of a page in pieces. Raises CorpusError where a tag has no end in sight."""
    parser = _Parser()
    for piece in pieces:
        parser.feed(piece)
        if len(parser.rawdata) > _LONGEST:
            raise CorpusError(
                "a tag, comment or script in it does not end; to read it as it is, set html to 'keep'",
                path,
            )
        yield parser.take()
    parser.close()
    yield parser.take()
    if parser.begun:
        yield "\n"


class _Parser(HTMLParser):
    """Collects the text. Line breaks and spaces are written when text follows."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.begun = False
        self._text: list[str] = []
        self._breaks, self._space = 0, False
        self._hidden, self._depth, self._pre = "", 0, 0

    def take(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return text

    def handle_starttag(self, tag: str, attributes: object) -> None:
        if tag == (self._hidden or tag) and tag in _HIDDEN:
            self._hidden, self._depth = tag, self._depth + 1
        self._pre += tag == "pre"
        self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._depth -= 1
            self._hidden = tag if self._depth else ""
        self._pre = max(0, self._pre - (tag == "pre"))
        self._separate(tag)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if not self._pre:
            self._space = self._space or data[:1].isspace()
            data, ends = _SPACE.sub(" ", data).strip(" "), data[-1:].isspace()
        if data:
            if self.begun:
                self._text.append("\n" * self._breaks or " " * self._space)
            self._text.append(data)
            self.begun, self._breaks, self._space = True, 0, not self._pre and ends

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Skip it; the library fails at one it does not know."""
        return self.parse_bogus_comment(i, bool(report))

    def _separate(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._breaks = 2
        elif tag in _LINES:
            self._breaks = min(2, self._breaks + 1) if tag == "br" else max(self._breaks, 1)
        elif tag in ("td", "th"):
            self._space = True
