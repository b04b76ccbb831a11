"""The text of a Word document: a line for each paragraph, as Word itself saves plain text."""

from __future__ import annotations

import html
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from textgen.errors import CorpusError

_PART: Final = "word/document.xml"
_LONGEST: Final = 1 << 26  # bytes of that part, which is held in memory
# What is left out is taken to its end, or that of the part, so that the time is linear.
_MARKUP: Final = re.compile(
    r"""<(?P<hidden>mc:Fallback|w:moveFrom|w:pPr|w:txbxContent)(?:\s[^<>]*[^/<>])?>
        .*?(?:</(?P=hidden)>|\Z)
    |   <w:t(?:\s[^<>]*)?>(?P<text>[^<]*)
    |   <w:(?P<mark>tab|br|cr|noBreakHyphen)(?:\s[^<>]*)?/>
    |   (?P<end></w:p>|<w:p(?:\s[^<>]*)?/>)""",
    re.DOTALL | re.VERBOSE,
)
_MARKS: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_FAULTS: Final = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError, ValueError)


def text_of_docx(path: Path) -> Iterator[str]:
    """Yield the text of a .docx file; notes, headers, comments and deletions are left out.

    Raises CorpusError for a file that is none, is damaged, or is too long to be held in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_PART).file_size > _LONGEST:
                raise CorpusError(f"its text takes more than {_LONGEST:,} bytes of XML", path)
            document = archive.read(_PART).decode().rstrip()
        if not document.endswith("document>"):
            raise ValueError("it is cut off")
        text = "".join(map(_text, _MARKUP.finditer(document)))
    except _FAULTS as error:
        raise CorpusError("it is not a Word document (.docx), or is damaged", path) from error
    yield text


def _text(found: re.Match[str]) -> str:
    if found["mark"]:
        return _MARKS[found["mark"]]
    return html.unescape(found["text"] or "\n" * bool(found["end"]))
