"""What a text shares with the corpus that a run was trained on."""

from __future__ import annotations

from typing import Any

from textgen import CopyFinder, Generator, TextgenError
from textgen_serve.errors import ApiError, logger
from textgen_serve.logprobs import Spelling


def finder(generator: Generator) -> CopyFinder:
    """The finder that knows the training corpus. Raises ApiError where that is not what it was."""
    try:
        return generator.copy_finder()
    except TextgenError as error:  # its message may name paths, which are not for clients
        logger.warning("%s", error)
        message = "the training corpus of this model is not here, or has changed"
        raise ApiError(404, message, code="no_corpus") from error


def copied_passages(generator: Generator, text: str) -> dict[str, Any]:
    """The passages with their positions in characters, and the share of 8-grams that the corpus has
    (textgen.CopyReport).

    Raises ApiError, also where the corpus is not what it was.
    """
    report = finder(generator).report(text)
    tokenizer = generator.tokenizer
    offsets = Spelling(tokenizer).offsets(text, tokenizer.encode(text))
    return {
        "passages": [
            {"start": offsets[start], "end": offsets[end]} for start, end in report.passages
        ],
        "copied_8_grams": report.ngram_shares[8],
    }
