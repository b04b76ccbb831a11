"""The nearest known name to one that was mistyped, and the nearest known text to a character."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable
from typing import Final


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean X?" with the known name most like `name`, or nothing where none is like it.

    The beginning of a name stands for it, as "temp" for "temperature": letter by letter the two are
    not much alike.
    """
    known = list(known)
    begun = [other for other in known if len(name) > 2 and other.startswith(name)]
    matches = sorted(begun, key=len) or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else ""


_TYPED: Final = {  # of the block of general punctuation
    **dict.fromkeys(range(0x2010, 0x2016), "-"),
    0x2212: "-",
    **dict.fromkeys(range(0x2018, 0x201C), "'"),
    **dict.fromkeys(range(0x201C, 0x2020), '"'),
}
_PRINTED: Final = {"'": "\N{RIGHT SINGLE QUOTATION MARK}", '"': "\N{LEFT DOUBLE QUOTATION MARK}"}


def nearest_text(text: str, is_known: Callable[[str], bool]) -> str:
    """The known text that a keyboard has in place of a text: without curls or accents, or in the
    other case; what books have in place of a straight mark; or "".
    """
    typed = unicodedata.normalize("NFKD", text.translate(_TYPED))
    plain = "".join(c for c in typed if not unicodedata.combining(c))
    near = (plain, plain.swapcase(), _PRINTED.get(text, ""))
    return next((each for each in near if each and is_known(each)), "")
