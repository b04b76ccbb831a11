"""The text of documents of Word, LibreOffice and other word processors: a line for each paragraph,
as they save plain text themselves. Notes, comments, headers, text boxes, deletions and readings of
characters are left out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from textgen_builtins.corpora import zipped_parts

# What is left out is taken to its end, or that of the part, so that the time is linear.
_WORD: Final = re.compile(
    r"""<(?P<hidden>mc:Fallback|w:del|w:moveFrom|w:pPr|w:rt|w:txbxContent)(?:\s[^<>]*[^/<>])?>
        .*?(?:</(?P=hidden)>|\Z)
    |   <w:t(?:\s[^<>]*)?>(?P<text>[^<]*)
    |   <w:(?P<mark>tab|br|cr|noBreakHyphen)(?:\s[^<>]*)?/>
    |   (?P<end></w:p>|<w:p(?:\s[^<>]*)?/>)""",
    re.DOTALL | re.VERBOSE,
)
_WORD_MARKS: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_HIDDEN_STYLE: Final = re.compile(
    r"""<!--.*?(?:-->|\Z)
    |   <(office:annotation|text:note|text:ruby-text|text:tracked-changes|draw:custom-shape
        |draw:text-box|svg:desc|svg:title)(?:\s[^<>]*[^/<>])?>
        .*?(?:</\1>|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_PARAGRAPH: Final = re.compile(
    r"<text:(?P<name>[ph])(?:\s[^<>]*)?(?:/>|(?<!/)>(?P<inside>.*?)(?:</text:(?P=name)>|\Z))",
    re.DOTALL,
)
_MARK: Final = re.compile(
    r"""<text:(?P<mark>tab|line-break|s)(?P<attributes>\s[^<>]*)?/>
    |   <[^<>]*>""",
    re.VERBOSE,
)
_COUNT: Final = re.compile(r'\stext:c="(\d{1,9})"')
_SPACE: Final = re.compile(r"[ \t\r\n]+")
_MOST_SPACES: Final = 40  # in a row


def text_of_docx(path: Path) -> Iterator[str]:
    """Yield the text of a .docx file.

    Raises CorpusError for a file that is none, is damaged, or is too long to be held in memory.
    """
    with zipped_parts.opened(path, "a Word document (.docx)") as parts:
        online = "word/document2.xml"  # as Word in a browser calls it
        part = online if online in parts else "word/document.xml"
        document = _whole(parts.read(part), "document>")
        text = "".join(map(_text, _WORD.finditer(document)))
    yield text


def text_of_odt(path: Path) -> Iterator[str]:
    """The same of an OpenDocument text (.odt)."""
    with zipped_parts.opened(path, "an OpenDocument text (.odt)") as parts:
        content = _whole(parts.read("content.xml"), "document-content>")
        body = content[content.index("<office:text") :]
        found = _PARAGRAPH.finditer(_HIDDEN_STYLE.sub("", body))
        text = "".join(f"{_paragraph(each['inside'] or '')}\n" for each in found)
    yield text


def _text(found: re.Match[str]) -> str:
    if found["mark"]:
        return _WORD_MARKS[found["mark"]]
    return html.unescape(found["text"] or "\n" * bool(found["end"]))


def _paragraph(inside: str) -> str:
    return html.unescape(_MARK.sub(_mark, _SPACE.sub(" ", inside))).strip(" ")


def _mark(found: re.Match[str]) -> str:
    if found["mark"] == "s":
        count = _COUNT.search(found["attributes"] or "")
        return " " * min(int(count[1]) if count else 1, _MOST_SPACES)
    return {"tab": "\t", "line-break": "\n"}.get(found["mark"] or "", "")


def _whole(part: bytes, end: str) -> str:
    """A part as text. Raises ValueError where it is cut off."""
    document = part.decode().rstrip()
    if not document.endswith(end):
        raise ValueError("it is cut off")
    return document
