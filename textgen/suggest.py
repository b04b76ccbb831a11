"""The nearest known name to one that was mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean X?" with the known name most like `name`, or nothing where none is like it.

    The beginning of a name stands for it, as "temp" for "temperature": letter by letter the two are not much alike.
    """
    known = list(known)
    begun = [other for other in known if len(name) > 2 and other.startswith(name)]
    matches = sorted(begun, key=len) or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else ""
