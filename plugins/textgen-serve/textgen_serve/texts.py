"""The tokens of a text."""

from __future__ import annotations

from typing import Any, Final

from textgen import Generator, TextgenError
from textgen_serve.errors import ApiError
from textgen_serve.limits import Limits
from textgen_serve.logprobs import Spelling
from textgen_serve.models import end_id

END: Final = "<|endoftext|>"
"""The text that stands for the end of a document, where the tokenizer has one."""


def tokenized(generator: Generator, text: str, limits: Limits, with_texts: bool) -> dict[str, Any]:
    """The ids of a text, with the text of each if that is asked for.

    Unknown characters become the unknown token.
    """
    end, tokenizer = end_id(generator), generator.tokenizer
    ids = [end] if text == END and end is not None else tokenizer.encode(text).tolist()
    made = {"count": len(ids), "max_model_len": limits.prompt_tokens, "tokens": ids}
    return {**made, "token_strs": [*map(Spelling(tokenizer), ids)]} if with_texts else made


def detokenized(generator: Generator, ids: list[Any]) -> dict[str, str]:
    """The text of ids. Raises ApiError."""
    try:
        if not all(type(token) is int for token in ids):
            raise ApiError(400, "tokens must be a list of token ids", param="tokens")
        return {"prompt": generator.tokenizer.decode(generator.prepare(ids).ids)}
    except TextgenError as error:
        raise ApiError.of(error, {"prompt": "tokens"}) from error
