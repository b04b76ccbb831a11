"""Numbers as text, one a line, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from textgen import CorpusError
from textgen.protocols import Floats

_LONGEST_LINE: Final = 1000  # characters; Python itself writes no float in more than 24


def to_text(values: Iterable[float]) -> str:
    """One number a line, with as many digits as it takes to read the same number back."""
    return "".join(f"{value!r}\n" for value in values)


def parse(text: str) -> float:
    """The finite number that `text` writes, blanks around it allowed. Raises ValueError."""
    value = float(text)
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"{text!r} is not a finite number")
    return value


def read_blocks(pieces: Iterable[str]) -> Iterator[Floats]:
    """The numbers (N,) of a text that comes in pieces, cut anywhere; empty lines are passed over.

    Raises CorpusError with the line's number, counted from 1.
    """
    line, held = 1, ""
    for piece in pieces:
        whole, newline, rest = piece.rpartition("\n")
        if newline:
            lines = (held + whole).split("\n")
            yield _numbers(lines, line)
            line, held = line + len(lines), ""
        held += rest
        if len(held) > _LONGEST_LINE:
            raise _no_number(held, line)
    yield _numbers([held], line)


def _numbers(lines: list[str], first: int) -> Floats:
    values = []
    for number, text in enumerate(lines, first):
        if text := text.strip():
            try:
                values.append(parse(text))
            except ValueError:
                raise _no_number(text, number) from None
    return np.array(values, np.float64)


def _no_number(text: str, line: int) -> CorpusError:
    shown = text if len(text) <= 40 else text[:40] + "…"
    return CorpusError(
        f"line {line}: {shown!r} is not a finite number; the tokenizer bins takes one number a line"
    )
