"""What a tokenizer makes of text that is not in its vocabulary, and of the ends of documents."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from typing import Any, Final

import numpy as np

from textgen.documents import DOCUMENT_END
from textgen.errors import TextgenError
from textgen.protocols import Ids
from textgen.testing.environment import Subject
from textgen.testing.outcomes import Skip, Violation

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

_AROUND: Final = 60  # characters of the sample that an example takes
_LETTERS: Final = "漢字한글ЖЫқδωאשगतხნმთბ"  # of which most texts have none


def check_unknown(tokenizer: Any, sample: str) -> None:
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
        if (
            tokenizer.unknown_id is None
            and (other := alike.setdefault(ids.tobytes(), letter)) != letter
        ):
            raise Violation(
                f"unknown_id is None, and {letter!r} is encoded as {other!r} is, both in {shown_ids(ids)}"
            )


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


def check_end(subject: Subject, text: str) -> None:
    """Fit a tokenizer on `text` as two documents, and see what it has for their ends."""
    tokenizer = subject.build()
    if not hasattr(tokenizer, "end_id"):
        raise Skip("no end_id: it takes no corpus of documents")
    tokenizer.fit(iter([text[:70], DOCUMENT_END, text[70:], DOCUMENT_END]))
    end, size = tokenizer.end_id, tokenizer.vocab_size
    saved = json.loads(json.dumps(tokenizer.to_dict()))
    loaded = getattr(subject.build().from_dict(saved), "end_id", None)
    if loaded != end:
        raise Violation(f"end_id was {end!r} and came back as {loaded!r}")
    if end is None:
        raise Skip("no end_id after documents: it takes no corpus of them")
    if (
        isinstance(end, bool)
        or not isinstance(end, int)
        or not 0 <= end < size
        or end == tokenizer.unknown_id
    ):
        raise Violation(
            f"end_id is {end!r}, vocab_size {size}, and unknown_id {tokenizer.unknown_id!r}"
        )
    ids = np.asarray(tokenizer.encode(text))
    if end in ids:
        raise Violation(f"a text of the corpus was encoded to its end_id, {end}")
    for how, shown in _shown(tokenizer, ids[:5], end):
        if shown:
            raise Violation(f"{how} gave {shown!r} for end_id")


def _shown(tokenizer: Any, ids: Any, end: int) -> list[tuple[str, str]]:
    """What the end is decoded to, alone and after a text."""
    stream = tokenizer.incremental_decoder()
    stream.decode(ids)
    ended = np.array([end])
    return [("decode()", tokenizer.decode(ended)), ("an incremental decoder", stream.decode(ended))]
