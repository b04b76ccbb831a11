"""The contract of tokenizers on documents: an id for their end."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from textgen.documents import DOCUMENT_END
from textgen.testing.environment import Subject
from textgen.testing.outcomes import Skip, Violation

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component


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
    if isinstance(end, bool) or not isinstance(end, int) or not 0 <= end < size or end == tokenizer.unknown_id:
        raise Violation(f"end_id is {end!r}, vocab_size {size}, and unknown_id {tokenizer.unknown_id!r}")
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
