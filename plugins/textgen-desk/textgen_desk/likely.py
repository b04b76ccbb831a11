"""A sampler that makes names more likely."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import attrs
import numpy as np
from array_api_compat import array_namespace, device

from textgen.protocols import Array, History, Tokenizer

_BONUS: Final = 2.0  # nats that the next token of a name gets


@attrs.frozen
class LikelyNames:
    """Adds to the logits of the tokens by which a name would begin, and by which one that has begun
    would go on.

    following  the tokens that may follow the beginnings of names; after (), those by which names
               begin, but no space, which is in every text
    longest    tokens of such a beginning
    """

    following: Mapping[tuple[int, ...], list[int]]
    longest: int
    history = "tokens"

    @classmethod
    def of(cls, names: tuple[str, ...], tokenizer: Tokenizer) -> LikelyNames:
        """The sampler for names as texts."""
        following = defaultdict[tuple[int, ...], list[int]](list)
        for name in filter(None, map(str.strip, names)):
            for text in (name, f" {name}"):
                ids = tuple(tokenizer.encode(text).tolist())
                for begun in range(1, len(ids)):
                    following[ids[:begun]].append(ids[begun])
            if tokenizer.decode(np.array(ids[:1])).strip():
                following[()].append(ids[0])
        return cls(following, max([1, *map(len, following)]))

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) changed."""
        bias = np.zeros(logits.shape, np.float32)
        for row in range(len(bias)):
            tail = tuple(history.tokens(row)[-self.longest :].tolist())
            for start in range(len(tail) + 1):
                bias[row, self.following.get(tail[start:], [])] = _BONUS
        return logits + array_namespace(logits).asarray(bias, device=device(logits))
