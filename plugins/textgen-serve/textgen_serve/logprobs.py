"""Tokens and their log-probabilities in the shapes of OpenAI's completions and of vLLM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from textgen import TokenLogprobs
from textgen.protocols import Ids, Tokenizer
from textgen.tokenizers import incremental_decoder, unknown_id

_TAIL: Final = 32  # tokens before a text on which the text of its first token may depend
# Parts of a text that are normalised each by itself: characters with their marks, or words.
_PARTS: Final = (r"(?s)\r\n|.[\u0300-\u036f\u1160-\u11ff\u3099\u309a]*", r"[A-Za-z]+|[^A-Za-z]+")
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

    def pieces(self, before: Ids, skip: int = 0) -> TokenTexts:
        """Reads the tokens that follow others, without so many characters of the first."""
        return TokenTexts(self._tokenizer, before, skip)

    def offsets(self, text: str, ids: Ids) -> list[int]:
        """Characters where each of the ids (T,) of a text begins in it, and where it ends: of
        the text as it was given, which the tokenizer may have normalised.
        """
        texts, tokenizer, unknown = (
            self.pieces(ids[:0]),
            self._tokenizer,
            unknown_id(self._tokenizer),
        )
        offsets = np.cumsum([0, *(len(texts.add(token)) for token in ids.tolist())])
        if (spelled := tokenizer.decode(ids)) == text:
            return list(map(int, offsets))

        def normalised(part: str) -> str:
            own = tokenizer.encode(part)
            return tokenizer.decode(own if unknown in ids else own[own != unknown])

        for pattern in _PARTS:
            parts = re.findall(pattern, text)
            known = {part: normalised(part) for part in {*parts}}
            if "".join(map(known.__getitem__, parts)) == spelled:
                ours = np.cumsum([0, *map(len, parts)])
                theirs = np.cumsum([0, *(len(known[part]) for part in parts)])
                at = np.searchsorted(theirs, offsets, "right") - 1
                inside = np.minimum(offsets - theirs[at], np.diff(ours, append=ours[-1])[at])
                return list(map(int, ours[at] + inside))
        return list(map(int, np.minimum(offsets, len(text))))


class TokenTexts:
    """The text that each token of a text completes; joined, that is the text."""

    def __init__(self, tokenizer: Tokenizer, before: Ids, skip: int) -> None:
        self._decode = incremental_decoder(tokenizer).decode
        self._skip = skip
        if len(tail := before[-_TAIL:]):
            self._skip += len(tokenizer.decode(tail)) - len(self._decode(tail))

    def add(self, token: int) -> str:
        """The text that a token completes."""
        text = self._decode(np.array([token]))
        shown, self._skip = text[self._skip :], max(0, self._skip - len(text))
        return shown


def legacy(
    entries: Iterable[TokenLogprobs], offsets: Sequence[int], spelling: Spelling, skip: int = 0
) -> dict[str, Any]:
    """The `logprobs` of a choice: of each token its text, log-probability, alternatives and offset
    in the text. The first is without `skip` characters, which are in the prompt.

    The token itself is always among the alternatives. Of tokens with one text, the likeliest
    counts.
    """
    tokens, logprobs, tops = [], [], []
    for entry in entries:
        text, own = spelling(entry.token)[skip:], finite(entry.logprob)
        tokens.append(text)
        logprobs.append(own)
        top: dict[str, float] | None = None
        if own is not None:
            top = {}
            for token, logprob in (*entry.top, (entry.token, own)):
                other = spelling(token)[skip:]
                top[other] = max(top.get(other, _LEAST), logprob)
        tops.append(top)
        skip = 0
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
