"""A sampler that makes names more likely."""

from __future__ import annotations

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

    beginnings  the first tokens of names, but those that are in every text, as a space is
    names       the tokens of each name after a space, and without one
    """

    beginnings: tuple[int, ...]
    names: tuple[tuple[int, ...], ...]
    history = "tokens"

    @classmethod
    def of(cls, names: tuple[str, ...], tokenizer: Tokenizer) -> LikelyNames:
        """The sampler for names as texts."""
        stripped = [name.strip() for name in names if name.strip()]
        after = [tuple(tokenizer.encode(f" {name}").tolist()) for name in stripped]
        first = {ids[0] for ids in after if tokenizer.decode(np.array(ids[:1])).strip()}
        alone = [tuple(tokenizer.encode(name).tolist()) for name in stripped]
        return cls(tuple(first), (*after, *alone))

    def __call__(self, logits: Array, history: History) -> Array:
        """(B, V) changed."""
        bias = np.zeros(logits.shape, np.float32)
        bias[:, list(self.beginnings)] = _BONUS
        longest = max(map(len, self.names), default=1)
        for row in range(len(bias)):
            tail = tuple(history.tokens(row)[-longest:].tolist())
            for ids in self.names:
                for begun in range(1, len(ids)):
                    if tail[-begun:] == ids[:begun]:
                        bias[row, ids[begun]] = _BONUS
        return logits + array_namespace(logits).asarray(bias, device=device(logits))
