"""A book of Project Gutenberg without what stands before and after it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from textgen.errors import CorpusError

# The title between the words and the asterisks may take several lines.
_MARK: Final = (
    r"^[ \t]*\*{3} ?%s OF (?:THE|THIS) PROJECT GUTENBERG E(?:BOOK|TEXT)\b[^*]{0,500}\*{3}[ \t]*$"
)
_START: Final = re.compile(_MARK % "START", re.IGNORECASE | re.MULTILINE)
_END: Final = re.compile(_MARK % "END", re.IGNORECASE | re.MULTILINE)
_LAST_LINE: Final = re.compile("End of (?:the |this )?Project Gutenberg", re.IGNORECASE)


def is_book(text: str) -> bool:
    """Whether a text has the marks of a beginning and of an end."""
    start = _START.search(text)
    return start is not None and _END.search(text, start.end()) is not None


def book_alone(pieces: Iterable[str], path: Path) -> Iterator[str]:
    """The text between the lines that say START and END OF THE PROJECT GUTENBERG EBOOK, without
    empty lines there; of each book, if there are several.

    They are held in memory. Raises CorpusError where one of the two lines is missing.
    """
    text, at = "".join(pieces), 0
    while (start := _START.search(text, at)) or not at:
        if start is None:
            raise _missing("START", path)
        if (end := _END.search(text, start.end())) is None:
            raise _missing("END", path)
        book = text[start.end() : end.start()].strip()
        body, _, last = book.rpartition("\n")
        if _LAST_LINE.match(last):  # older books have it before the mark
            book = body.rstrip()
        yield "\n\n" * (at > 0) + book + "\n"
        at = end.end()


def _missing(which: str, path: Path) -> CorpusError:
    cause = f"it has no line *** {which} OF THE PROJECT GUTENBERG EBOOK … ***"
    return CorpusError(f"{cause}; set the option gutenberg to false if it is not from there", path)
