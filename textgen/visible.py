"""What is shown on a terminal: text without what would command it, and sizes."""

from __future__ import annotations

import re
from typing import Final

# C0 but tab and line feed, DEL, C1, and the bidirectional controls, which let a text read as another.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""`text` with control characters as escapes, such as \x1b and \u202e; line breaks and tabs stay."""
    return _CONTROLS.sub(lambda control: ascii(control[0])[1:-1], text)


def size(count: int | None) -> str:
    """Bytes as people say them."""
    if count is None:
        return "an unknown amount"
    power = min(max(0, (count.bit_length() - 1) // 10), 3)
    return f"{count / 1024**power:.{int(power == 3)}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"
