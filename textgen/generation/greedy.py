"""Greedy tokens in stretches, for decoders that go on by themselves (textgen.protocols.GreedyDecoder)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from operator import length_hint
from typing import Final, cast

from textgen.contracts import checks
from textgen.contracts.guards import FAILURES, raise_failure
from textgen.generation.sampling import Chain
from textgen.protocols import Decoder, GreedyDecoder, Ids, Tensors

LONGEST: Final = 256
TO_STOP: Final = 8  # where texts may stop: what is made beyond is thrown away
_FIRST: Final = 4
_SECONDS: Final = 0.01


class Ahead:
    """Tokens that a decoder has run ahead to, given out one by one; and the state `before` the token that led there."""

    def __init__(self, before: Tensors, fed: list[int], tokens: list[int]) -> None:
        self.before = before
        self._fed, self._tokens, self._left = fed, tokens, iter(tokens)

    def __iter__(self) -> Iterator[int]:
        return self._left

    @property
    def taken(self) -> list[int]:
        """The token that led there and those given out."""
        return self._fed + self._tokens[: len(self._tokens) - length_hint(self._left)]


class Stretches:
    """Greedy tokens in stretches, each from one call of a decoder that goes on by itself.

    They grow for as long as one takes a hundredth of a second, after which the clock, the caller and the reader of a
    stream have their turn.
    """

    def __init__(self, decoder: GreedyDecoder, chain: Chain, longest: int) -> None:
        self._decoder, self._chain, self._longest = decoder, chain, longest
        self._length = _FIRST

    @classmethod
    def of(cls, decoder: Decoder, chain: Chain, longest: int = LONGEST) -> Stretches | None:
        """None where the decoder cannot, or where a token is more than the likeliest."""
        able = chain.plainly_greedy and len(chain.forbidden) < chain.vocab_size
        return cls(cast("GreedyDecoder", decoder), chain, longest) if able and offers_greedy(decoder) else None

    def next(self, tokens: Ids, wanted: int | None) -> Ids:
        """The (B, n) tokens that follow `tokens` (B,), at most `wanted`; (B, 0) where the decoder gives none."""
        asked = min(self._length, self._longest, self._length if wanted is None else wanted)
        begun = time.perf_counter()
        try:
            ids = self._decoder.continue_greedily(tokens, asked, self._chain.forbidden)
            checks.check_greedy(ids, (len(tokens), asked), self._chain.vocab_size, self._chain.model)
        except FAILURES as error:
            raise_failure(self._chain.model, "decoding", error)
        if time.perf_counter() - begun < _SECONDS / 2:
            self._length = min(2 * self._length, self._longest)
        return ids


def offers_greedy(decoder: Decoder) -> bool:
    """Whether it is a GreedyDecoder."""
    return callable(getattr(decoder, "continue_greedily", None))
