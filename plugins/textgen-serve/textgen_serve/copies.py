"""What a text shares with the corpus that a run was trained on."""

from __future__ import annotations

import itertools
from typing import Any

from textgen import Generator, TextgenError
from textgen_serve.errors import ApiError
from textgen_serve.logprobs import TokenTexts


def copied_passages(generator: Generator, text: str) -> dict[str, Any]:
    """The passages with their places in characters, and the share of 8-grams that the corpus has (textgen.CopyReport).

    Raises ApiError, also where the corpus is not what it was.
    """
    try:
        ids = generator.encode_prompt(text)
        report = generator.copy_finder().report(text)
    except TextgenError as error:
        raise ApiError.of(error, {}) from error
    texts = TokenTexts(generator.tokenizer, ids[:0])
    places = [0, *itertools.accumulate(len(texts.add(token)) for token in ids.tolist())]
    return {
        "passages": [
            {"start": places[start], "end": places[end]} for start, end in report.passages
        ],
        "copied_8_grams": report.ngram_shares[8],
    }
