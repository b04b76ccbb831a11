"""Prompts and texts as a caller gives them, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from textgen.errors import PromptError, UsageError
from textgen.pipeline.pipeline import UnknownCharacters
from textgen.protocols import Ids, Tokenizer
from textgen.suggest import nearest_text


def check_prompt(tokenizer: Tokenizer, prompt: str, unknown_characters: UnknownCharacters) -> Ids:
    """(T,) ids of a prompt, with what the vocabulary lacks treated as told. Raises PromptError."""
    if not isinstance(prompt, str):
        raise UsageError("expected a string", argument="prompt", value=prompt)
    if unknown_characters not in get_args(UnknownCharacters):
        expected = f"expected one of {', '.join(get_args(UnknownCharacters))}"
        raise UsageError(expected, argument="unknown_characters", value=unknown_characters)
    ids = tokenizer.encode(prompt)
    unknown = tokenizer.unknown_id
    if unknown is None or unknown_characters == "unknown" or unknown not in ids:
        return ids
    lacking = [c for c in dict.fromkeys(prompt) if unknown in tokenizer.encode(c)]
    if unknown_characters == "error":
        near = {c: nearest_text(c, lambda text: unknown not in tokenizer.encode(text)) for c in lacking}
        raise PromptError(lacking or [prompt], {c: text for c, text in near.items() if text})
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
