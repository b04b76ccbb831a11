"""Marks of print, and the forms of a text as a keyboard has them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

_QUOTES: Final = {
    **dict.fromkeys([*range(0x2018, 0x201C), 0x2039, 0x203A], "'"),
    **dict.fromkeys([*range(0x201C, 0x2020), 0xAB, 0xBB], '"'),
}
_HYPHENS: Final = dict.fromkeys([0x2010, 0x2011, 0x2212], "-")
_DASHES: Final = [0x2012, 0x2013, 0x2014, 0x2015, 0x2E3A, 0x2E3B]
MARKS: Final = "".join(map(chr, [*_QUOTES, *_HYPHENS, *_DASHES]))
"""Quotation marks and dashes as books have them."""


def plain_forms(text: str) -> Iterator[str]:
    """Forms of a text as a keyboard has it: without curls and accents, a dash as "--" or "-"."""
    for dash in ("--", "-"):
        table = {**_QUOTES, **_HYPHENS, **dict.fromkeys(_DASHES, dash)}
        typed = unicodedata.normalize("NFKD", text.translate(table))
        yield "".join(c for c in typed if not unicodedata.combining(c))
