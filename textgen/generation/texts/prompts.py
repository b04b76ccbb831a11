"""Prompts and texts as a caller gives them, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import PromptError, UsageError
from textgen.pipeline.options import UnknownCharacters
from textgen.protocols import Array, Ids, Tokenizer
from textgen.tokenizers import unknown_id

NO_IDS: Final = np.empty(0, np.int64)


@attrs.frozen(eq=False)
class EncodedPrompt:
    """A prompt that is encoded once for many requests, by Generator.prepare.

    text    the prompt as a string
    ids     the ids (T,) of the prompt; followed by the ids of a text, they decode to both
    before  ids that are fed before the prompt (`priming` in run.json)
    first   (V,) bool, the tokens that begin with a space, if a space at the end of the prompt is
            left to the first generated token and not in `ids`; otherwise None
    """

    text: str = attrs.field(default="", repr=False)
    ids: Ids = NO_IDS
    before: Ids = NO_IDS
    first: npt.NDArray[np.bool_] | None = attrs.field(default=None, repr=False)

    @property
    def held(self) -> int:
        """Number of characters of the prompt that are left to the first generated token: 0 or 1."""
        return int(self.first is not None)

    def open(self, logits: Array) -> None:
        """Exclude from the logits (V,) of the first token what cannot come first, in place."""
        if self.first is not None:
            logits[~self.first] = -np.inf


def encoded_prompt(
    tokenizer: Tokenizer,
    prompt: Any,
    unknown_characters: UnknownCharacters,
    spaced: Callable[[], npt.NDArray[np.bool_] | None],
    before: Ids,
    *,
    after_space: bool = False,
) -> EncodedPrompt:
    """A prompt given as text, as ids or encoded. Raises as check_prompt does.

    spaced       gives what `spaced_tokens` does, or None to leave no space to the first token
    before       what a text begins after. Ids are fed as they are given, unless there are none
    after_space  whether a space before the prompt is left to its first token
    """
    if isinstance(prompt, EncodedPrompt):
        if not after_space and (prompt.first is None or spaced() is not None):
            _check_ids(prompt.ids, tokenizer.vocab_size)
            return prompt
        prompt = prompt.text
    if not isinstance(prompt, str):
        if len(ids := check_prompt(tokenizer, prompt, unknown_characters)):
            space = tokenizer.encode(" ") if after_space else NO_IDS
            return EncodedPrompt(tokenizer.decode(ids), np.concatenate([space, ids]))
        prompt = ""
    text = f" {prompt}" if after_space else prompt
    first = None
    if text.endswith(" ") and (first := spaced()) is not None:
        text = text[:-1]
    return EncodedPrompt(prompt, check_prompt(tokenizer, text, unknown_characters), before, first)


def check_prompt(
    tokenizer: Tokenizer,
    prompt: Any,
    unknown_characters: UnknownCharacters,
    argument: str = "prompt",
) -> Ids:
    """(T,) ids of a prompt, given as text or ids, with what the vocabulary lacks refused, left
    out, or as unknown tokens.

    Raises PromptError, naming what it lacks; UsageError for ids out of range.
    """
    if not isinstance(prompt, str):
        return _check_ids(prompt, tokenizer.vocab_size)
    ids = tokenizer.encode(prompt)
    unknown = unknown_id(tokenizer)
    if unknown is None or unknown_characters == "unknown" or unknown not in ids:
        return ids
    if unknown_characters == "error":
        raise PromptError(_lacking(tokenizer, prompt), argument)
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
    """The parts of a prompt that become unknown tokens: characters, else words, else all of it."""
    unknown = unknown_id(tokenizer)
    count = int((tokenizer.encode(prompt) == unknown).sum())
    for parts in (Counter(prompt), Counter(prompt.split())):
        lacking = [part for part in parts if unknown in tokenizer.encode(part)]
        if sum(parts[part] for part in lacking) == count:
            return lacking
    return [prompt]
