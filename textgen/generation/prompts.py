"""Prompts and texts as a caller gives them, checked."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, get_args

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.checks import FAILURES, check_ids
from textgen.documents import DOCUMENT_END, CorpusPiece, split_documents
from textgen.errors import PromptError, UsageError
from textgen.pipeline.options import UnknownCharacters
from textgen.protocols import Ids, Tokenizer
from textgen.suggest import nearest_text

NO_IDS: Final = np.empty(0, np.int64)
_BEFORE: Final = ".\n"  # a text without a prompt
_EXAMINED: Final = 1000  # characters in which unknown ones are looked for first
_GATHERED: Final = 1 << 16  # ids of short documents that are handed on together


@attrs.frozen(eq=False)
class EncodedPrompt:
    """A prompt that is encoded once for many requests, by Generator.prepare.

    text    of the prompt
    ids     (T,) of the prompt
    before  ids to feed before them (see document_start)
    first   (V,) which tokens begin with a space, if the last id is one: a text begins with one of
            these, in place of it
    """

    text: str = attrs.field(repr=False)
    ids: Ids
    before: Ids
    first: npt.NDArray[np.bool_] | None = attrs.field(default=None, repr=False)


def encoded_prompt(
    tokenizer: Tokenizer,
    prompt: Any,
    unknown_characters: UnknownCharacters,
    spaced: Callable[[], npt.NDArray[np.bool_] | None],
) -> EncodedPrompt:
    """A prompt given as text, as ids or encoded, with what `spaced_tokens` gives. Raises as
    check_prompt does.
    """
    if isinstance(prompt, EncodedPrompt):
        _check_ids(prompt.ids, tokenizer.vocab_size)
        return prompt
    ids = check_prompt(tokenizer, prompt, unknown_characters)
    before = document_start(tokenizer, prompt)
    if not isinstance(prompt, str):
        return EncodedPrompt(tokenizer.decode(ids), ids, before)
    ends_in_space = prompt.endswith(" ") and len(ids) and tokenizer.decode(ids[-1:]) == " "
    return EncodedPrompt(prompt, ids, before, spaced() if ends_in_space else None)


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
        lacking = _lacking(tokenizer, prompt)
        near = {
            c: nearest_text(c, lambda text: unknown not in tokenizer.encode(text)) for c in lacking
        }
        raise PromptError(lacking, {c: text for c, text in near.items() if text})
    known: Ids = ids[ids != unknown]
    return known


def spaced_tokens(tokenizer: Tokenizer) -> npt.NDArray[np.bool_] | None:
    """(V,) which tokens begin with a space; None if none but the space itself does.

    Where tokens are words with the space before them, models hardly ever saw a word after a token
    that is a space ("token healing").
    """
    texts = (tokenizer.decode(np.array([token])) for token in range(tokenizer.vocab_size))
    begins = np.array([text.startswith(" ") for text in texts])
    return begins if begins.sum() > 1 else None


def end_id(tokenizer: Tokenizer) -> int | None:
    """A tokenizer's id for the end of a document; None if it has none
    (textgen.protocols.DocumentTokenizer).
    """
    return getattr(tokenizer, "end_id", None)


def document_start(tokenizer: Tokenizer, prompt: Any) -> Ids:
    """The ids (T,) to feed before a prompt, so that it starts a document: as in training, an end
    id. Ids are fed as they are given, unless there are none.

    A text without a prompt begins as after a sentence that ends a line: to a recurrent network, the
    start state is in the middle of a text. After the line break alone, models went on with others.
    """
    end = end_id(tokenizer)
    before: Ids = NO_IDS
    if not len(prompt):
        with contextlib.suppress(*FAILURES):  # a tokenizer of something else may refuse it
            before = tokenizer.encode(_BEFORE)
            before = before[before != tokenizer.unknown_id]
    is_text = isinstance(prompt, str) or not len(prompt)
    return before if end is None or not is_text else np.append(before, end)


def encode_documents(tokenizer: Tokenizer, pieces: Iterable[CorpusPiece]) -> Iterator[Ids]:
    """The ids of a corpus, (T,) at a time.

    With an end id: one before the first document, and one after each.
    """
    end, size = end_id(tokenizer), tokenizer.vocab_size
    marks = [] if end is None else [np.array([end])]
    parts, count = [*marks], 0
    for document in split_documents(pieces):
        for ids in itertools.chain(tokenizer.encode_pieces(document), marks):
            parts.append(check_ids(ids, tokenizer, size))
            count += len(ids)
            if count >= _GATHERED:
                yield np.concatenate(parts) if len(parts) > 1 else parts[0]
                parts, count = [], 0
    if parts:
        yield np.concatenate(parts)


def text_pieces(text: str | Iterable[CorpusPiece]) -> Iterator[CorpusPiece]:
    """The pieces of a text, which may be one."""
    for piece in [text] if isinstance(text, str) else text:
        if not isinstance(piece, str) and piece is not DOCUMENT_END:
            raise UsageError(f"a piece of a text must be a string, and is {piece!r}")
        yield piece


def _check_ids(prompt: Any, vocab_size: int) -> Ids:
    try:
        ids = np.asarray(prompt)
    except ValueError:
        ids = np.empty((0, 0))
    if ids.shape == (0,):
        return NO_IDS
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UsageError(
            "expected a string or a list of token ids", argument="prompt", value=prompt
        )
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise UsageError(f"expected token ids from 0 to {vocab_size - 1}", argument="prompt")
    return ids.astype(np.int64)


def _lacking(tokenizer: Tokenizer, prompt: str) -> list[str]:
    """The parts of a prompt that become unknown tokens: characters, else words, else all of it.

    Of a long prompt, the parts of its beginning if there are any, so that a message does not take
    long.
    """
    unknown, beginning = tokenizer.unknown_id, prompt[:_EXAMINED]
    if unknown in tokenizer.encode(beginning):
        prompt = beginning
    count = int((tokenizer.encode(prompt) == unknown).sum())
    for parts in (Counter(prompt), Counter(prompt.split())):
        lacking = [part for part in parts if unknown in tokenizer.encode(part)]
        if sum(parts[part] for part in lacking) == count:
            return lacking
    return [prompt]
