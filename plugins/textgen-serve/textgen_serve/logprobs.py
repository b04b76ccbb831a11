"""Tokens and their log-probabilities in the shapes of OpenAI's completions and of vLLM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from textgen import TokenLogprobs
from textgen.protocols import Ids, Tokenizer

_TAIL: Final = 32  # tokens before a text on which the text of its first token may depend
_LEAST: Final = -9999.0  # in place of minus infinity, which JSON lacks


class Spelling:
    """The text of single tokens, and what each adds to a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        """The text of a token by itself."""
        text = self._known.get(token)
        if text is None:
            text = self._known[token] = self._tokenizer.decode(np.array([token]))
        return text

    def pieces(self, before: Ids) -> TokenTexts:
        """Reads the tokens that follow others."""
        return TokenTexts(self._tokenizer, before)


class TokenTexts:
    """The text that each token of a text completes; joined, that is the text."""

    def __init__(self, tokenizer: Tokenizer, before: Ids) -> None:
        self._decode = tokenizer.incremental_decoder().decode
        self._skip = 0
        if len(tail := before[-_TAIL:]):
            self._skip = len(tokenizer.decode(tail)) - len(self._decode(tail))

    def add(self, token: int) -> str:
        """The text that a token completes."""
        text = self._decode(np.array([token]))
        shown, self._skip = text[self._skip :], max(0, self._skip - len(text))
        return shown


def legacy(
    entries: Iterable[TokenLogprobs], offsets: Sequence[int], spelling: Spelling
) -> dict[str, Any]:
    """The `logprobs` of a choice: of each token its text, log-probability, alternatives and place
    in the text.

    The token itself is always among the alternatives. Of tokens with one text, the likeliest
    counts.
    """
    tokens, logprobs, tops = [], [], []
    for entry in entries:
        text, own = spelling(entry.token), finite(entry.logprob)
        tokens.append(text)
        logprobs.append(own)
        top: dict[str, float] | None = None
        if own is not None:
            top = {}
            for token, logprob in (*entry.top, (entry.token, own)):
                other = spelling(token)
                top[other] = max(top.get(other, _LEAST), logprob)
        tops.append(top)
    return {
        "tokens": tokens,
        "token_logprobs": logprobs,
        "top_logprobs": tops,
        "text_offset": list(offsets),
    }


def of_prompt(
    entries: Iterable[TokenLogprobs], count: int, spelling: Spelling
) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: of each token itself and the `count` likeliest, by id, with their
    ranks.
    """
    made: list[dict[str, Any] | None] = []
    for entry in entries:
        if entry.logprob is None:
            made.append(None)
            continue
        ranked = [(token, logprob, rank) for rank, (token, logprob) in enumerate(entry.top, 1)]
        own = (entry.token, entry.logprob, entry.rank)
        made.append(
            {
                str(token): {
                    "logprob": finite(logprob),
                    "rank": rank,
                    "decoded_token": spelling(token),
                }
                for token, logprob, rank in [own, *ranked[:count]]
            }
        )
    return made


def finite(logprob: float | None) -> float | None:
    """A log-probability that JSON can hold."""
    return None if logprob is None else float(max(logprob, _LEAST))
