"""Prompts and texts as a caller gives them, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

import numpy as np

from textgen.errors import PromptError, UsageError
from textgen.pipeline.options import UnknownCharacters
from textgen.protocols import Ids, Tokenizer
from textgen.suggest import nearest_text


def check_prompt(tokenizer: Tokenizer, prompt: Any, unknown_characters: UnknownCharacters) -> Ids:
    """(T,) ids of a prompt, given as text or ids, with what the vocabulary lacks treated as told.

    Raises PromptError, naming what it lacks; UsageError for ids out of range.
    """
    if unknown_characters not in get_args(UnknownCharacters):
        expected = f"expected one of {', '.join(get_args(UnknownCharacters))}"
        raise UsageError(expected, argument="unknown_characters", value=unknown_characters)
    if not isinstance(prompt, str):
        return _check_ids(prompt, tokenizer.vocab_size)
    ids = tokenizer.encode(prompt)
    unknown = tokenizer.unknown_id
    if unknown is None or unknown_characters == "unknown" or unknown not in ids:
        return ids
    if unknown_characters == "error":
        lacking = _lacking(tokenizer, prompt, ids, unknown)
        near = {c: nearest_text(c, lambda text: unknown not in tokenizer.encode(text)) for c in lacking}
        raise PromptError(lacking, {c: text for c, text in near.items() if text})
    known: Ids = ids[ids != unknown]
    return known


def prompt_text(tokenizer: Tokenizer, prompt: Any, ids: Ids) -> str:
    """The text of a prompt that may be given as ids."""
    return prompt if isinstance(prompt, str) else tokenizer.decode(ids)


def text_pieces(text: str | Iterable[str]) -> Iterator[str]:
    """The pieces of a text, which may be one."""
    if not isinstance(text, Iterable):
        raise UsageError(f"a text must be a string, or pieces of one, and is {text!r}")
    for piece in [text] if isinstance(text, str) else text:
        if not isinstance(piece, str):
            raise UsageError(f"a piece of a text must be a string, and is {piece!r}")
        yield piece


def _check_ids(prompt: Any, vocab_size: int) -> Ids:
    try:
        ids = np.asarray(prompt)
    except ValueError:
        ids = np.empty((0, 0))
    if not ids.size and ids.ndim == 1:
        return np.empty(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UsageError("expected a string or a list of token ids", argument="prompt", value=prompt)
    if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
        raise UsageError(f"expected token ids from 0 to {vocab_size - 1}", argument="prompt")
    return ids.astype(np.int64)


def _lacking(tokenizer: Tokenizer, prompt: str, ids: Ids, unknown: int) -> list[str]:
    """The parts of a prompt that became unknown tokens: characters, else words, else all of it."""
    count = int((ids == unknown).sum())
    for parts in (list(prompt), prompt.split()):
        lacking = [part for part in parts if unknown in tokenizer.encode(part)]
        if len(lacking) == count:
            return list(dict.fromkeys(lacking))
    return [prompt]
