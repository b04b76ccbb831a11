"""The samplers that look for repeated sequences of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen import BuildContext
from textgen.protocols import Array, History, Ids, Sampler, Tokenizer
from textgen_builtins.samplers import config as configs
from textgen_builtins.samplers import logits as ops
from textgen_builtins.samplers.links import OFF

_LOG_LARGEST: Final = (
    88.7228391  # of a power of the base, as in llama.cpp: float32 can represent it
)
_MOST: Final = 1e30  # has the effect of any larger penalty


@attrs.frozen
class NoRepeatNgram:
    """Forbids tokens that would repeat a sequence of n tokens, unless none would be left.

    Keeps every token of the text, so memory grows with it.
    """

    n: int
    history = "tokens"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with tokens forbidden."""
        forbidden = np.zeros(tuple(logits.shape), bool)
        for row in range(len(forbidden)):
            tokens = history.tokens(row)
            if len(tokens) >= self.n:
                grams = np.lib.stride_tricks.sliding_window_view(tokens, self.n)
                tail = tokens[len(tokens) - self.n + 1 :]
                forbidden[row, grams[(grams[:, :-1] == tail).all(axis=1), -1]] = True
        return ops.forbid_unless_all(logits, forbidden)


@attrs.frozen
class Dry:
    """Penalises tokens that would extend a repetition (P. E. Weidmann, "DRY: a modern repetition penalty", 2024).

    A token gets multiplier * base ** (n - allowed_length) off its logit, where n >= allowed_length is the length of the
    longest sequence at the end of the text that stands somewhere before, with the token after it. Keeps every token of
    the text, so memory grows with it.

    breakers  the tokens that complete a sequence breaker by themselves
    split     the breakers of several tokens
    """

    multiplier: float
    base: float
    allowed_length: int
    penalty_last_n: int
    breakers: Ids
    split: tuple[tuple[int, ...], ...]
    history = "tokens"

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) with penalties subtracted."""
        penalties = np.zeros(tuple(logits.shape), np.float32)
        for row in range(len(penalties)):
            tokens = history.tokens(row)
            lengths = self._repeated(
                tokens if self.penalty_last_n < 0 else tokens[-self.penalty_last_n :],
                len(penalties[row]),
            )
            exponents = np.minimum(
                lengths - self.allowed_length, self._longest - self.allowed_length
            )
            penalties[row] = np.where(
                lengths >= 0, np.minimum(self.multiplier * self.base**exponents, _MOST), 0
            )
        penalties[:, self.breakers] = 0
        return logits - ops.like(penalties, logits) if penalties.any() else logits

    @property
    def _longest(self) -> int:
        """The length of a repetition beyond which the penalty grows no more."""
        return self.allowed_length + (
            int(_LOG_LARGEST / math.log(self.base)) if self.base > 1.000001 else 0
        )

    def _repeated(self, tokens: Ids, vocab_size: int) -> npt.NDArray[np.float64]:
        """(V,) lengths of the longest repetition that each token would extend; -1 where there is none of any weight."""
        longest = np.full(vocab_size, -1.0)
        most = min(self._since_breaker(tokens), self._longest)
        if len(tokens) <= self.allowed_length or most < self.allowed_length:
            return longest
        lengths = np.zeros(
            len(tokens) - 1
        )  # of what ends at each place and at the end of the text alike
        ends, length = np.arange(len(tokens) - 1), 0
        while len(ends) and length < most:
            ends = ends[ends >= length]
            ends = ends[tokens[ends - length] == tokens[-1 - length]]
            length += 1
            lengths[ends] = length
        counted = lengths >= self.allowed_length
        np.maximum.at(longest, tokens[1:][counted], lengths[counted])
        return longest

    def _since_breaker(self, tokens: Ids) -> int:
        """How many tokens follow the last sequence breaker."""
        single = np.flatnonzero(np.isin(tokens, self.breakers))
        last = int(single[-1]) + 1 if len(single) else 0
        for ids in self.split:
            ends = len(ids) + np.flatnonzero(
                np.isin(tokens[: max(0, len(tokens) - len(ids) + 1)], ids[0])
            )
            found = (
                end
                for end in ends[::-1].tolist()
                if tuple(tokens[end - len(ids) : end].tolist()) == ids
            )
            last = max(last, next(found, 0))
        return len(tokens) - last


def no_repeat_ngram(config: configs.NoRepeatNgramConfig, context: BuildContext) -> Sampler:
    """Reads the whole text."""
    return NoRepeatNgram(config.n) if config.n else OFF


def dry(config: configs.DryConfig, context: BuildContext) -> Sampler:
    """Reads the whole text."""
    if not config.multiplier or not config.penalty_last_n:
        return OFF
    assert context.tokenizer is not None
    single, split = _breakers(context.tokenizer, config.sequence_breakers)
    return Dry(
        config.multiplier, config.base, config.allowed_length, config.penalty_last_n, single, split
    )


def _breakers(
    tokenizer: Tokenizer, texts: Iterable[str]
) -> tuple[Ids, tuple[tuple[int, ...], ...]]:
    """The tokens that contain a breaker, and the breakers that begin in one token and end in another, as ids.

    A breaker may begin within a token: as in llama.cpp, its ids are any token that ends with a beginning of it, and the
    ids of the rest. What the tokenizer has no tokens for can not occur.
    """
    ids = np.arange(tokenizer.vocab_size)
    tokens = [tokenizer.decode(ids[i : i + 1]) for i in ids.tolist()]
    single, split = set(), set()
    for text in texts:
        single |= {i for i, token in enumerate(tokens) if text in token}
        for cut in range(1, len(text)):
            rest = tokenizer.encode(text[cut:]).tolist()
            if tokenizer.unknown_id is None or tokenizer.unknown_id not in rest:
                split |= {
                    (i, *rest) for i, token in enumerate(tokens) if token.endswith(text[:cut])
                }
    return np.array(sorted(single), np.int64), tuple(sorted(split))
