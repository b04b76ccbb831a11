"""Greedy tokens in chunks, from decoders that choose them by themselves (textgen.protocols.GreedyDecoder)."""

from __future__ import annotations

import time
from typing import Any, Final

from textgen.contracts import checks
from textgen.generation.chain import Chain
from textgen.protocols import Ids

LONGEST: Final = 256
TO_STOP: Final = 8  # where texts may stop: what is made beyond the stop is thrown away
_FIRST: Final = 4
_SECONDS: Final = 0.01


class GreedyChunks:
    """Greedy tokens for a batch, each chunk from one call of the decoder.

    Chunks grow for as long as one takes a hundredth of a second, after which the clock, the caller and the reader of a
    stream have their turn.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._length = _FIRST

    @staticmethod
    def can(decoder: Any, chain: Chain) -> bool:
        """Whether the decoder offers it, and a token is nothing but the likeliest."""
        able = chain.plainly_greedy and len(chain.forbidden) < chain.vocab_size
        return able and callable(getattr(decoder, "continue_greedily", None))

    def next(self, decoder: Any, tokens: Ids, wanted: int, longest: int) -> Ids:
        """The (B, n) tokens that follow `tokens` (B,), at most `wanted`; (B, 0) where the decoder gives none."""
        asked = min(self._length, longest, wanted)
        begun = time.perf_counter()
        ids: Ids = decoder.continue_greedily(tokens, asked, self._chain.forbidden)
        checks.check_greedy(ids, (len(tokens), asked), self._chain.vocab_size, self._chain.model)
        if time.perf_counter() - begun < _SECONDS / 2:
            self._length = min(2 * self._length, longest)
        return ids
