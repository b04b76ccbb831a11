"""Text that is safe to show on a terminal: what would command it is written out instead."""

from __future__ import annotations

import re
from typing import Final

# C0 but tab and line feed, DEL, C1, and the bidirectional controls, which let a text read as another.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""`text` with control characters as escapes, such as \x1b and \u202e; line breaks and tabs stay."""
    return _CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
