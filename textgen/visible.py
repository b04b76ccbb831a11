"""What is shown on a terminal: text without what would command it, and sizes."""

from __future__ import annotations

import re
from typing import Final

# C0 but tab and line feed, DEL, C1, and the bidirectional controls, which let a text read as
# another.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""`text` with control characters as escapes, such as \x1b and \u202e; line breaks and tabs
    stay.
    """
    return _CONTROLS.sub(lambda control: ascii(control[0])[1:-1], text)


def byte_count(count: int | None) -> str:
    """Bytes in decimal units, to two digits or a tenth of a gigabyte: "87 kB", "3.4 MB", "16.2
    GB".
    """
    if count is None:
        return "an unknown amount"
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    has_tenth = unit in ("GB", "TB") or (unit != "B" and value < 9.95)
    return f"{value:,.{int(has_tenth)}f} {unit}"
