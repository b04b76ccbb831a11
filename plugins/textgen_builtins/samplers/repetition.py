"""The sampler that makes repetitions of words less likely."""

from __future__ import annotations

import unicodedata
from typing import Final, Self

import attrs
import numpy as np
import numpy.typing as npt

from textgen import BuildContext
from textgen.protocols import Array, Floats, History, Ids, Sampler, Tokenizer
from textgen_builtins.samplers import config as configs
from textgen_builtins.samplers import logits as ops
from textgen_builtins.samplers.links import OFF
from textgen_builtins.token_texts import token_texts

_BASE: Final = 1.75  # factor of DRY's penalty for each further word, as in llama.cpp
_MOST_EXPONENT: Final = 158  # of the base: float32 can represent the power
_SEARCHED_TOKENS: Final = 10_000  # of the last tokens
_RUN, _LONGEST_RUN = 4, 64  # times that a token between words may come in a row; that are counted
_HASH_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_MAX_PENALTY: Final = 1e30  # has the effect of any larger penalty


@attrs.frozen(eq=False)
class Words:
    """The words that tokens make up.

    A word is a run of letters, marks, digits, apostrophes and underscores. A wide letter, as of
    Chinese, is a word by itself.

    holds   (V,) whether a token has a part of a word
    starts  (V,) whether it begins with one, which continues the word that the text ends with
    ends    (V,) whether it ends with one, which the next token may continue
    """

    holds: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.bool_]
    ends: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """The words of a tokenizer."""
        columns = []
        for text in token_texts(tokenizer):
            held = any(_is_of_word(each) for each in text)
            columns.append((held, _is_inner(text[:1]), _is_inner(text[-1:])))
        return cls(*np.array(columns, np.bool_).T)

    def begin(self, tokens: Ids, before: Ids) -> npt.NDArray[np.bool_]:
        """Whether each of `tokens` (N,) begins a word after the one `before` (N,) it."""
        joined: npt.NDArray[np.bool_] = self.starts[tokens] & self.ends[before]
        return self.holds[tokens] & ~joined


def _is_of_word(character: str) -> bool:
    """Whether a character is part of a word. Bytes that are not a whole character are one."""
    return (
        unicodedata.category(character)[0] in "LMN"
        or character in "'\N{RIGHT SINGLE QUOTATION MARK}_\ufffd"
    )


def _is_inner(character: str) -> bool:
    """Whether a character, or none, makes one word with a like one beside it."""
    return (
        bool(character)
        and _is_of_word(character)
        and unicodedata.east_asian_width(character) not in "WF"
    )


@attrs.frozen
class Dry:
    """Penalises words that would extend a repetition.

    Source: P. E. Weidmann, "DRY: a modern repetition penalty", 2024.

    A token that begins a word gets multiplier * 1.75 ** (n - allowed_length) * log2(1 + times) off
    its logit, where n >= allowed_length is the number of words in the longest sequence at the end
    of the text that stands somewhere before, with the token after it, and `times` is how often such
    a sequence does. So a phrase may come again, and a loop cannot go on. What stands between words
    does not count. Within a word no token gets a penalty, so that none is broken. The last 10,000
    tokens are searched. Keeps every token of the text, so memory grows with it.
    """

    multiplier: float
    allowed_length: int
    words: Words
    history = "tokens"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with penalties subtracted."""
        penalties = np.zeros(tuple(logits.shape), np.float32)
        every = np.arange(logits.shape[-1])
        for row in range(len(penalties)):
            tokens = history.tokens(row)[-_SEARCHED_TOKENS:]
            if not len(tokens):
                continue
            if (begins := self.words.begin(every, tokens[-1:])).any():
                penalties[row] = np.where(begins, self._penalties(tokens, len(every)), 0)
            if not self.words.holds[tokens[-1]]:
                penalties[row, tokens[-1]] = self._of_run(tokens[-_LONGEST_RUN:])
        return logits - ops.like(penalties, logits) if penalties.any() else logits

    def _penalties(self, tokens: Ids, vocab_size: int) -> Floats:
        """(V,) what is subtracted for the first tokens of words that would extend a repetition."""
        begins = self.words.holds[tokens]
        begins[1:] = self.words.begin(tokens[1:], tokens[:-1])
        inside = self.words.holds[tokens]
        tokens, begins = tokens[inside], begins[inside]
        words = np.cumsum(begins[::-1])  # in the last tokens
        starts = np.flatnonzero(begins[1:]) + 1  # of words that follow some text
        alike = _alike(
            2 * tokens + begins, starts, len(tokens)
        )  # a word's beginning is not its middle
        lengths = np.where(alike > 0, words[alike - 1], 0)
        counted = lengths >= self.allowed_length
        firsts, longest = tokens[starts[counted]], np.zeros(vocab_size)
        np.maximum.at(longest, firsts, lengths[counted])
        times = np.bincount(firsts, minlength=vocab_size)
        exponents = np.minimum(longest - self.allowed_length, _MOST_EXPONENT)
        return np.minimum(self.multiplier * _BASE**exponents * np.log2(1 + times), _MAX_PENALTY)

    def _of_run(self, tokens: Ids) -> float:
        """Penalty of the last token again, once it has come several times in a row."""
        others = np.flatnonzero(tokens[::-1] != tokens[-1])
        run = int(others[0]) if len(others) else len(tokens)
        return 0.0 if run < _RUN else min(self.multiplier * _BASE ** (run - _RUN), _MAX_PENALTY)


def _alike(marked: Ids, ends: Ids, most: int) -> Ids:
    """Number of the last numbers of `marked` (N,) that also stand before each of `ends`, counted up
    to `most` at least.

    By sums of N numbers, which are alike where sequences are, and log2(N) questions of them.
    """
    powers = np.full(len(marked) + 1, _HASH_FACTOR)
    powers[0] = 1
    powers = np.cumprod(powers)
    sums = np.zeros(len(marked) + 1, np.uint64)
    np.cumsum((marked + 1).astype(np.uint64) * powers[:-1], out=sums[1:])
    shifts, last = powers[len(marked) - ends], sums[-1]
    lengths = np.zeros(len(ends), np.int64)
    for bit in reversed(range(most.bit_length())):
        longer = lengths + (1 << bit)
        fits = np.flatnonzero(longer <= ends)
        n, end = longer[fits], ends[fits]
        same = (sums[end] - sums[end - n]) * shifts[fits] == last - sums[len(marked) - n]
        lengths[fits[same]] = n[same]
    return lengths


def dry(config: configs.DryConfig, context: BuildContext) -> Sampler:
    """Reads the whole text."""
    if not config.multiplier:
        return OFF
    assert context.tokenizer is not None
    words = Words.of(context.tokenizer)
    return Dry(config.multiplier, config.allowed_length, words)
