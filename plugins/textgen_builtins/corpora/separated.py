"""Several texts in one file, such as poems: parts between lines of signs, or empty lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from textgen.documents import DOCUMENT_END, CorpusPiece

SIGNS: Final = re.compile(r"\s*([*#~=_-])(\s*\1){2,}\s*")
_PIECE: Final = 1 << 20  # characters


def parts_marked(lines: Iterable[str], empty_lines: int) -> Iterator[CorpusPiece]:
    """Each part, without the empty lines at its ends, and DOCUMENT_END after it.

    empty_lines   that separate parts, at least, as lines of signs do
    """
    held, size, empty, is_begun = list[str](), 0, 0, False
    for line in lines:
        if not line.strip():
            empty += 1
            continue
        is_sign = SIGNS.fullmatch(line) is not None
        if is_begun and (is_sign or empty >= empty_lines):
            yield from ("".join(held), DOCUMENT_END)
            held, size, is_begun = [], 0, False
        if not is_sign:
            held.append("\n" * (empty + 1) + line if is_begun else line)
            size, is_begun = size + len(line), True
            if size > _PIECE:
                yield "".join(held)
                held, size = [], 0
        empty = 0
    if is_begun:
        yield from ("".join(held), DOCUMENT_END)
