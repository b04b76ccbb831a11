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

from textgen.errors import CorpusError
from textgen_builtins.corpora import zipped_parts
from textgen_builtins.corpora.compression import read_bytes
from textgen_builtins.corpora.encodings import decode

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
    r"""<text:(?P<mark>tab|line-break|s)(?:\s(?:[^<>]*text:c="(?P<count>\d{1,9})")?[^<>]*)?/>
    |   <[^<>]*>""",
    re.VERBOSE,
)
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


def text_of_rtf(path: Path) -> Iterator[str]:
    """The text of a file in Rich Text Format. Raises CorpusError for one that is damaged."""
    try:
        from striprtf.striprtf import rtf_to_text
    except ImportError as error:
        cause = "it is Rich Text Format, which needs striprtf"
        raise CorpusError(f"{cause}; pip install striprtf", path) from error
    # Other characters than those of ASCII are escaped, or of the encoding that the file names.
    document = "".join(decode(read_bytes(path), path, "latin-1"))
    try:
        text: str = rtf_to_text(document, "cp1252", "replace")  # type: ignore[no-untyped-call]
    except (ValueError, OverflowError, LookupError, TypeError) as error:
        raise CorpusError("it is not Rich Text Format (.rtf), or is damaged", path) from error
    # Word writes characters beyond 16 bits as two surrogates
    yield text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_rtf(path: Path) -> bool:
    """Whether a file begins as Rich Text Format does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(5) == b"{\\rtf"


def _text(found: re.Match[str]) -> str:
    if found["mark"]:
        return _WORD_MARKS[found["mark"]]
    return html.unescape(found["text"] or "\n" * bool(found["end"]))


def _paragraph(inside: str) -> str:
    return html.unescape(_MARK.sub(_mark, _SPACE.sub(" ", inside))).strip(" ")


def _mark(found: re.Match[str]) -> str:
    if found["mark"] == "s":
        return " " * min(int(found["count"] or 1), _MOST_SPACES)
    return {"tab": "\t", "line-break": "\n"}.get(found["mark"] or "", "")


def _whole(part: bytes, end: str) -> str:
    """A part as text. Raises ValueError where it is cut off."""
    document = part.decode().rstrip()
    if not document.endswith(end):
        raise ValueError("it is cut off")
    return document
