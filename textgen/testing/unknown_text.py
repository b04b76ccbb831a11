"""What a tokenizer makes of text that is not in its vocabulary."""

from __future__ import annotations

import contextlib
import unicodedata
from typing import Any, Final

import numpy as np

from textgen.errors import TextgenError
from textgen.protocols import Ids
from textgen.testing.environment import Subject
from textgen.testing.outcomes import Skip, Violation

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

_AROUND: Final = 60  # characters of the sample that an example takes
_LETTERS: Final = "漢字한글ЖЫқδωאשगतხნმთბ"  # of which most texts have none


def check_unknown(subject: Subject, tokenizer: Any, sample: str) -> None:
    """Letters that the sample does not have, between words of it."""
    if _leaves_letters_out(tokenizer, sample):
        raise Skip("it leaves out letters that its text has, and so may do that with others")
    known = unicodedata.normalize("NFKD", sample).casefold()
    space = max(0, sample.find(" ", 3))
    before, after = sample[: space + 1], sample[space : space + _AROUND]
    alike: dict[bytes, str] = {}
    for letter in (letter for letter in _LETTERS if letter not in known):
        text = f"{before}{letter}{after}"
        try:
            ids = np.asarray(tokenizer.encode(text))
            without = np.asarray(tokenizer.encode(before + after))
        except TextgenError:  # it says what it takes
            continue
        if np.array_equal(ids, without):
            raise Violation(f"encode({text!r}) gave nothing for {letter!r}")
        if tokenizer.unknown_id is None and (other := alike.setdefault(ids.tobytes(), letter)) != letter:
            raise Violation(f"unknown_id is None, and {letter!r} is encoded as {other!r} is, both in {shown_ids(ids)}")


def _leaves_letters_out(tokenizer: Any, sample: str) -> bool:
    """Whether a letter of the sample beyond ASCII is the same to the tokenizer as a space, or as nothing."""
    for place, letter in enumerate(sample):
        if letter.isalpha() and not letter.isascii():
            before, after = sample[max(0, place - _AROUND) : place], sample[place + 1 :][:_AROUND]
            with contextlib.suppress(TextgenError):
                texts = (f"{before}{letter}{after}", f"{before} {after}", before + after)
                ids, *others = [np.asarray(tokenizer.encode(text)) for text in texts]
                return any(np.array_equal(ids, other) for other in others)
    return False


def shown_ids(ids: Ids) -> str:
    """The first ids, in brackets."""
    shown = ", ".join(map(str, ids[:8].tolist()))
    return f"[{shown}{', …' if len(ids) > 8 else ''}]"
