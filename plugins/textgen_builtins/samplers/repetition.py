"""DRY, the sampler that makes repetitions of words less likely."""

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
_MAX_EXPONENT: Final = 158  # 1.75 ** 158 is the largest power that float32 can represent
_SEARCHED_TOKENS: Final = 10_000  # last tokens in which repetitions are looked for
_FREE_REPEATS: Final = 4  # times in a row that a space or mark may come without a penalty
_COUNTED_REPEATS: Final = 64  # times in a row after which its penalty grows no more
_HASH_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)  # odd, so its powers never become 0
_MAX_PENALTY: Final = 1e30  # a larger one has the same effect, and might be infinite


@attrs.frozen(eq=False)
class Words:
    """The words that tokens make up.

    A word is a run of letters, marks, digits, apostrophes and underscores. A wide letter, as of
    Chinese, is a word by itself.

    has_word        (V,) whether a token has a part of a word
    starts_in_word  (V,) whether it starts with one, which continues the last word of the text
    ends_in_word    (V,) whether it ends with one, which the next token may continue
    """

    has_word: npt.NDArray[np.bool_]
    starts_in_word: npt.NDArray[np.bool_]
    ends_in_word: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """The words of a tokenizer."""
        columns = []
        for text in token_texts(tokenizer):
            has_word = any(map(_is_word_character, text))
            columns.append((has_word, _joins_neighbours(text[:1]), _joins_neighbours(text[-1:])))
        return cls(*np.array(columns, np.bool_).T)

    def begins_word(self, tokens: Ids, before: Ids) -> npt.NDArray[np.bool_]:
        """Whether each of `tokens` (N,) begins a word after the one `before` (N,) it. A token that
        first continues a word does not: "ing the" after "walk".
        """
        joined: npt.NDArray[np.bool_] = self.starts_in_word[tokens] & self.ends_in_word[before]
        return self.has_word[tokens] & ~joined


def _is_word_character(character: str) -> bool:
    """Whether a character is part of a word. U+FFFD is, which stands for a part of a character."""
    return (
        unicodedata.category(character)[0] in "LMN"
        or character in "'\N{RIGHT SINGLE QUOTATION MARK}_\ufffd"
    )


def _joins_neighbours(character: str) -> bool:
    """Whether a character forms one word with a word character beside it. A wide letter does not,
    as each is a word by itself; nor does an empty string.
    """
    return (
        bool(character)
        and _is_word_character(character)
        and unicodedata.east_asian_width(character) not in "WF"
    )


@attrs.frozen
class Dry:
    """Penalises words that would extend a repetition.

    Source: P. E. Weidmann, "DRY: a modern repetition penalty", 2024.

    If the last n words of the text occur earlier too, followed there by a token that begins a word,
    that token would extend the repetition, and its logit is lowered by

        multiplier * 1.75 ** (n - allowed_length) * log2(1 + times)

    n      number of words in the longest repetition that the token extends
    times  how often the token follows a repetition of allowed_length words or more

    The penalty grows exponentially with n: a phrase may come again, and a loop ends. What stands
    between words does not count. Within a word no token gets a penalty, so that none is broken. The
    last 10,000 tokens are searched. Keeps every token of the text, so memory grows with it.
    """

    multiplier: float
    allowed_length: int
    words: Words
    history = "tokens"  # the engine keeps all tokens of each text for it

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with penalties subtracted."""
        penalties = np.zeros(tuple(logits.shape), np.float32)
        every = np.arange(logits.shape[-1])
        for row in range(len(penalties)):
            tokens = history.tokens(row)[-_SEARCHED_TOKENS:]
            if not len(tokens):
                continue
            if (begins := self.words.begins_word(every, tokens[-1:])).any():
                penalties[row] = np.where(begins, self._penalties(tokens, len(every)), 0)
            if not self.words.has_word[tokens[-1]]:
                penalties[row, tokens[-1]] = self._of_repeats(tokens[-_COUNTED_REPEATS:])
        return logits - ops.like(penalties, logits) if penalties.any() else logits

    def _penalties(self, tokens: Ids, vocab_size: int) -> Floats:
        """Penalties (V,) of the first tokens of words that would extend a repetition."""
        begins = self.words.has_word[tokens]
        begins[1:] = self.words.begins_word(tokens[1:], tokens[:-1])
        inside = self.words.has_word[tokens]
        tokens, begins = tokens[inside], begins[inside]
        words = np.cumsum(begins[::-1])  # in the last tokens
        starts = np.flatnonzero(begins[1:]) + 1  # of words that follow some text
        marked = 2 * tokens + begins  # so that a word's beginning is not like its middle
        alike = _alike(marked, starts, len(tokens))
        lengths = np.where(alike > 0, words[alike - 1], 0)
        counted = lengths >= self.allowed_length
        firsts, longest = tokens[starts[counted]], np.zeros(vocab_size)
        np.maximum.at(longest, firsts, lengths[counted])
        times = np.bincount(firsts, minlength=vocab_size)
        exponents = np.minimum(longest - self.allowed_length, _MAX_EXPONENT)
        return np.minimum(self.multiplier * _BASE**exponents * np.log2(1 + times), _MAX_PENALTY)

    def _of_repeats(self, tokens: Ids) -> float:
        """Penalty of the last token again, once it has come several times in a row."""
        others = np.flatnonzero(tokens[::-1] != tokens[-1])
        repeats = int(others[0]) if len(others) else len(tokens)
        if repeats < _FREE_REPEATS:
            return 0.0
        return min(self.multiplier * _BASE ** (repeats - _FREE_REPEATS), _MAX_PENALTY)


def _alike(marked: Ids, ends: Ids, most: int) -> Ids:
    """For each of `ends`, how many of the last numbers of `marked` (N,) also stand before it: exact
    up to `most`.

    Compares rolling hashes (Karp and Rabin, 1987) by bisection, in log2(N) steps.
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
