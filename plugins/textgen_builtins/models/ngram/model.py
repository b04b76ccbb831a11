"""The n-gram model and its decoder."""

from __future__ import annotations

from typing import Final

import numpy as np

from textgen.protocols import Ids, Tensors
from textgen_builtins.models.ngram.smoothing import Floats, Ints
from textgen_builtins.models.ngram.trie import Trie

_NAMES: Final = ("counts", "keys", "sizes")


class NgramModel:
    """textgen.protocols.Model of n-gram counts: up to `order` tokens, over a vocabulary of `vocab_size`.

    Its weights are `keys`, `counts` and `sizes` of a Trie. How many there are depends on the text, so load_tensors
    takes any number that fits together.
    """

    def __init__(self, order: int, vocab_size: int) -> None:
        self.order = order
        self.trie = Trie(vocab_size, np.empty(0, np.int64), np.empty(0, np.int64), ())

    def decoder(self, batch_size: int) -> NgramDecoder:
        """A decoder at the start state, in which no token went before."""
        return NgramDecoder(self.trie, batch_size)

    def tensors(self) -> Tensors:
        """`keys` (E,), `counts` (E,) and `sizes` (orders counted so far,), all int64."""
        return {"counts": self.trie.counts, "keys": self.trie.keys, "sizes": np.array(self.trie.sizes, np.int64)}

    def load_tensors(self, tensors: Tensors) -> None:
        """Take over counts. Raises ValueError where they are not those of such a model."""
        if sorted(tensors) != list(_NAMES):
            raise ValueError(f"the weights are {', '.join(sorted(tensors)) or 'none'}, and should be {_NAMES}")
        for name, array in tensors.items():
            if array.dtype != np.int64 or array.ndim != 1:
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, and should be int64 (N,)")
        sizes = tensors["sizes"].tolist()
        if len(sizes) > self.order:
            raise ValueError(f"these are counts up to order {len(sizes)}, and the model's order is {self.order}")
        self.trie = Trie(self.trie.vocab_size, tensors["keys"], tensors["counts"], sizes)


class NgramDecoder:
    """textgen.protocols.Decoder. All it carries is, for each row, the node of the longest context that is known."""

    def __init__(self, trie: Trie, batch_size: int) -> None:
        self._trie = trie
        self._nodes: Ints = np.zeros(batch_size, np.int64)
        self._logits: Floats = np.empty((batch_size, trie.vocab_size))

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._nodes)

    def extend(self, tokens: Ids) -> Floats:
        """Log probabilities (B, V) of what follows `tokens` (B, T). The array is used again by the next call."""
        reach = max(self._trie.order - 1, 1)
        recent = tokens[:, -reach:] if tokens.shape[1] > reach else tokens  # what lies further back has no say
        if len(self._nodes) == 1:
            node = int(self._nodes[0])
            for token in recent[0].tolist():
                node = self._trie.advance_one(node, token)
            self._nodes[0] = node
            self._logits[0] = self._trie.log_probabilities(node)
            return self._logits
        for column in recent.T.astype(np.int64):
            self._nodes = self._trie.advance(self._nodes, column)
        return self._trie.gather(self._nodes, self._logits)

    def score(self, tokens: Ids) -> Floats:
        """Log probabilities (B, T, V) after each of `tokens` (B, T)."""
        nodes = self._trie.walk(self._nodes, np.asarray(tokens, np.int64))
        self._nodes = nodes[:, -1].copy()
        out = np.empty((nodes.size, self._trie.vocab_size))
        return self._trie.gather(nodes.ravel(), out).reshape(*nodes.shape, -1)

    def read_state(self) -> Tensors:
        """`context` (B,) int64: the numbers of nodes of this model's trie."""
        return {"context": self._nodes.copy()}

    def write_state(self, state: Tensors) -> None:
        """Go on from a state that `read_state` gave, or rows of one. Raises ValueError for other numbers."""
        nodes = np.array(state["context"], np.int64)
        if nodes.ndim != 1 or (len(nodes) and (nodes.min() < 0 or nodes.max() >= self._trie.nodes)):
            raise ValueError(f"context must be (B,) numbers from 0 to {self._trie.nodes - 1}")
        self._nodes = nodes
        self._logits = np.empty((len(nodes), self._trie.vocab_size))
