"""Texts whose paragraphs are broken into lines of a width: their width, and the paragraphs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

_WIDTHS: Final = range(30, 201)
_MIN_LINES: Final = 20  # lines that follow another
_MAX_SHARE: Final = 0.9  # share of them that go on with it
_PIECE: Final = 1 << 20  # characters
_ENDS: Final = ".!?:\"'\u2019\u201d"  # of sentences


def width_of(text: str) -> int | None:
    """Width in characters at which the lines of a text are broken; None if they are not.

    Lines were broken there if nearly each would be longer with the first word of the next.
    """
    lines = [line.rstrip() for line in text.split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    width = lengths[len(lengths) * 199 // 200] if lengths else 0
    pairs = [pair for pair in itertools.pairwise(lines) if all(pair) and not pair[1][0].isspace()]
    if width not in _WIDTHS or len(pairs) < _MIN_LINES:
        return None
    return (
        width if sum(_goes_on(*pair, width) for pair in pairs) > _MAX_SHARE * len(pairs) else None
    )


def joined(lines: Iterator[str], width: int) -> Iterator[str]:
    """Yield the text of lines in pieces of about a megabyte, with the lines that were broken at
    `width`, or before a small letter, joined by spaces, or by nothing after a hyphen.
    """
    made, size = list[str](), 0
    last, goes_on = next(lines, "").rstrip(), False
    for line in map(str.rstrip, lines):
        between = "\n"
        if _goes_on(last, line, width) or (last and line[:1].islower()):
            between = "" if last.endswith("-") and last[-2:] != " -" else " "
        made += [last.lstrip() if goes_on else last, between]
        size += len(last) + 1
        if size > _PIECE:
            yield "".join(made)
            made, size = [], 0
        last, goes_on = line, between != "\n"
    yield "".join([*made, last.lstrip() if goes_on else last])


def _goes_on(line: str, following: str, width: int) -> bool:
    """Whether a line was broken since it had no room for the first word of the following.

    An indented line may be a paragraph, or one of a letter: that goes on in the same column, in the
    middle of a sentence.
    """
    if not line or not following:
        return False
    indent = _indent(following)
    if indent and (indent != _indent(line) or line[-1] in _ENDS):
        return False
    word = len(following.split(maxsplit=1)[0])
    return 1.1 * width >= len(line) > width - 1 - word > word - 1


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
