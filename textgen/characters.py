"""The nearest known text to a character, as a keyboard has it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

_QUOTES: Final = {
    **dict.fromkeys([*range(0x2018, 0x201C), 0x2039, 0x203A], "'"),
    **dict.fromkeys([*range(0x201C, 0x2020), 0xAB, 0xBB], '"'),
}
_HYPHENS: Final = dict.fromkeys([0x2010, 0x2011, 0x2212], "-")
_DASHES: Final = [0x2012, 0x2013, 0x2014, 0x2015, 0x2E3A, 0x2E3B]
MARKS: Final = "".join(map(chr, [*_QUOTES, *_HYPHENS, *_DASHES]))
"""Quotation marks and dashes as books have them."""
_PRINTED: Final = {"'": "\N{RIGHT SINGLE QUOTATION MARK}", '"': "\N{LEFT DOUBLE QUOTATION MARK}"}


def plain_forms(text: str) -> Iterator[str]:
    """Forms of a text as a keyboard has it: without curls and accents, a dash as "--" or "-"."""
    for dash in ("--", "-"):
        table = {**_QUOTES, **_HYPHENS, **dict.fromkeys(_DASHES, dash)}
        typed = unicodedata.normalize("NFKD", text.translate(table))
        yield "".join(c for c in typed if not unicodedata.combining(c))


def nearest_text(text: str, is_known: Callable[[str], bool]) -> str:
    """The known text that a keyboard has in place of a text, or that in the other case; what books
    have in place of a straight mark; or "".
    """
    plain = [*plain_forms(text)][::-1]
    near = (*plain, *map(str.swapcase, plain), _PRINTED.get(text, ""))
    return next((each for each in near if each and is_known(each)), "")
