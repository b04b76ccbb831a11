"""Keeps the states that a decoder has inside prompts, for prompts that grow or come again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import attrs
import numpy as np

from textgen.protocols import Ids, Tensors

BLOCK: Final = 256  # tokens between two states
_ENTRY: Final = 512  # bytes of an entry beside its arrays


@attrs.define(eq=False)
class PromptCache:
    """The states after the blocks of prompts. The least recently used are dropped first.

    A state is found by a hash of all tokens before it, so that prompts share the states of what
    they have in common.

    most  bytes of all states
    """

    most: int
    _states: dict[bytes, Tensors] = attrs.field(factory=dict)
    _size: int = 0

    def longest(self, keys: Sequence[bytes]) -> tuple[int, Tensors | None]:
        """Number of a prompt's first blocks that are known, and the state after them."""
        for count in range(len(keys), 0, -1):
            if (state := self._states.pop(keys[count - 1], None)) is not None:
                self._states[keys[count - 1]] = state  # the last to be dropped
                return count, state
        return 0, None

    def keep(self, key: bytes, state: Tensors) -> None:
        """Keep the state of one row, as far as there is room."""
        size = _size(state)
        if size > self.most or key in self._states:
            return
        self._size += size
        self._states[key] = state
        while self._size > self.most:
            self._size -= _size(self._states.pop(next(iter(self._states))))


def block_keys(ids: Ids, salt: str) -> list[bytes]:
    """The keys of the blocks of a prompt (T,), but of one that its last token ends.

    There is always a token left to feed, which gives the logits of what follows.
    """
    key, keys = hashlib.sha256(salt.encode()).digest(), []
    for end in range(BLOCK, len(ids), BLOCK):
        block = ids[end - BLOCK : end].astype(np.int64)
        key = hashlib.sha256(key + block.tobytes()).digest()
        keys.append(key)
    return keys


def _size(state: Tensors) -> int:
    return _ENTRY + sum(array.nbytes for array in state.values())
