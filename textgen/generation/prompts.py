"""Prompts and texts as a caller gives them, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from textgen.errors import PromptError, UsageError
from textgen.pipeline.options import UnknownCharacters
from textgen.protocols import Ids, Tokenizer


def check_prompt(tokenizer: Tokenizer, prompt: str, unknown_characters: UnknownCharacters) -> Ids:
    """(T,) ids of a prompt, with what the vocabulary lacks treated as told. Raises PromptError."""
    if not isinstance(prompt, str):
        raise UsageError(f"a prompt must be a string, and is {prompt!r}")
    if unknown_characters not in get_args(UnknownCharacters):
        policies = ", ".join(get_args(UnknownCharacters))
        raise UsageError(f"unknown_characters must be one of {policies}, and is {unknown_characters!r}")
    ids = tokenizer.encode(prompt)
    unknown = tokenizer.unknown_id
    if unknown is None or unknown_characters == "unknown" or unknown not in ids:
        return ids
    lacking = [c for c in dict.fromkeys(prompt) if unknown in tokenizer.encode(c)]
    if unknown_characters == "error":
        raise PromptError(lacking or [prompt])
    ids = tokenizer.encode("".join(c for c in prompt if c not in lacking))
    known: Ids = ids[ids != unknown]
    return known


def text_pieces(text: str | Iterable[str]) -> Iterator[str]:
    """The pieces of a text, which may be one."""
    if not isinstance(text, Iterable):
        raise UsageError(f"a text must be a string, or pieces of one, and is {text!r}")
    for piece in [text] if isinstance(text, str) else text:
        if not isinstance(piece, str):
            raise UsageError(f"a piece of a text must be a string, and is {piece!r}")
        yield piece
