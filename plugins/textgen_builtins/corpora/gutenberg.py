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
_HELD: Final = 1000  # characters that may hold the beginning of a mark
_LONGEST: Final = 1 << 22  # characters before a book begins


def begins_as_book(pieces: Iterable[str]) -> bool:
    """Whether the mark of a beginning is in the first pieces."""
    held = ""
    for piece in pieces:
        held += piece
        if len(held) > _LONGEST:
            break
    return _START.search(held) is not None


def book_alone(pieces: Iterable[str], path: Path) -> Iterator[str]:
    """What stands between the lines that say START and END OF THE PROJECT GUTENBERG EBOOK, without empty lines there.

    Raises CorpusError where one of the two is missing.
    """
    pieces, held = iter(pieces), ""
    while (start := _START.search(held)) is None:
        piece = next(pieces, "")
        if not piece or len(held) > _LONGEST:
            raise _missing("START", path)
        held += piece
    held = held[start.end() :].lstrip()
    while not held and (piece := next(pieces, "")):
        held = piece.lstrip()
    searched = 0
    while (end := _END.search(held, searched)) is None:
        yield held[: (cut := len(held[: -2 * _HELD].rstrip()))]
        held = held[cut:]
        searched = max(0, len(held) - _HELD)
        if not (piece := next(pieces, "")):
            raise _missing("END", path)
        held += piece
    text = held[: end.start()].rstrip()
    if _LAST_LINE.match(text, last := text.rfind("\n") + 1):  # older books have it before the mark
        text = text[:last].rstrip()
    yield text + "\n"


def _missing(which: str, path: Path) -> CorpusError:
    cause = f"it has no line *** {which} OF THE PROJECT GUTENBERG EBOOK … ***"
    return CorpusError(f"{cause}; set the option gutenberg to false if it is not from there", path)
