"""The n-grams of a text as a trie, and the probabilities that follow from their counts.

Each n-gram of order 1 and up is an edge, from the node of its first n - 1 tokens; edge e leads to
node e + 1, and node 0 is the empty context. Edges are sorted by order, node and token. That is the
order of the keys node · V + token, so one sorted array of 64-bit keys answers every look-up,
whatever the size of the vocabulary and the order.

A node's suffix is the node of its tokens without the first: where a context was never seen, the
search goes on there (Aho and Corasick, "Efficient string matching", 1975).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np

from textgen.protocols import Tensors
from textgen_builtins.models.ngram.smoothing import Floats32, Ints, interpolation

# For the rows kept ready; deeper contexts are put together when they are asked for.
_TABLE_BYTES: Final = 1 << 26


class Trie:
    """N-gram counts of a vocabulary of V tokens. Immutable, so threads may share it.

    keys       (E,) int64, node · V + token of each n-gram, rising
    counts     (E,) integers: of the highest order how often it occurs, of the others after how many
               different tokens
    sizes      how many n-grams there are of order 1, 2, ...

    It takes up to 37 bytes of memory for an n-gram: 8 for the key, 8 for the count, 4 for its
    share, 1 to 4 for the token, and 13 more where it is a context. Raises ValueError when these do
    not fit together.
    """

    def __init__(self, vocab_size: int, keys: Ints, counts: Ints, sizes: Sequence[int]) -> None:
        self.vocab_size, self.keys, self.counts, self.sizes = vocab_size, keys, counts, tuple(sizes)
        self.order = len(self.sizes)
        borders = np.concatenate([[0], np.cumsum(np.asarray(self.sizes, np.int64))])
        self.nodes = (
            int(borders[-2]) + 1 if self.order else 1
        )  # that are contexts: the highest order's are none
        _check(self, borders)
        self._tokens = (keys % vocab_size).astype(np.min_scalar_type(vocab_size - 1))
        self._depths = np.repeat(
            np.arange(max(self.order, 1), dtype=np.uint8), [1, *self.sizes[:-1]]
        )
        numbers = np.int32 if len(keys) < 1 << 31 else np.int64
        self._starts: Any = np.searchsorted(keys, np.arange(self.nodes + 1) * vocab_size).astype(
            numbers
        )
        self._own32 = np.empty(len(keys), np.float32)
        self._lower32 = np.ones(self.nodes, np.float32)
        self._suffixes: Any = np.zeros(self.nodes, numbers)
        for n in range(self.order):
            edges = slice(borders[n], borders[n + 1])
            first = borders[n - 1] + 1 if n else 0  # node of depth n with the smallest number
            nodes = slice(first, borders[n] + 1)
            own, lower = interpolation(
                counts[edges],
                keys[edges] // vocab_size - first,
                int(borders[n] + 1 - first),
            )
            self._own32[edges], self._lower32[nodes] = own, lower
            if 0 < n < self.order - 1:
                self._link(edges)

    def _link(self, edges: slice) -> None:
        """Set the suffixes of the nodes that `edges`, those of an order, lead to."""
        parents = self.keys[edges] // self.vocab_size
        suffixes = self._find(self._suffixes[parents], self._tokens[edges])
        if (suffixes < 0).any():
            raise ValueError("an n-gram is there without the shorter one that it ends in")
        self._suffixes[edges.start + 1 : edges.stop + 1] = suffixes + 1

    def tensors(self) -> Tensors:
        """The arguments of the constructor, but for the size of the vocabulary."""
        sizes = np.array(self.sizes, np.int64)
        return {"counts": self.counts, "keys": self.keys, "sizes": sizes}

    def advance(self, nodes: Ints, tokens: Ints) -> Ints:
        """(M,) the node of the longest context known after `tokens` (M,) were added to contexts
        `nodes` (M,).
        """
        result = np.zeros(len(nodes), np.int64)
        if self.order < 2:
            return result
        rows = np.arange(len(nodes))
        nodes = np.where(self._depths[nodes] == self.order - 1, self._suffixes[nodes], nodes)
        nodes = nodes.astype(np.int64)
        while len(rows):
            edges = self._find(nodes, tokens[rows])
            result[rows] = (
                edges + 1
            )  # not found is -1, so 0: the empty context, unless a suffix does better
            again = (edges < 0) & (nodes > 0)
            rows, nodes = rows[again], self._suffixes[nodes[again]]
        return result

    def walk(self, start: Ints, tokens: Ints) -> Ints:
        """(B, T) the node of the longest known context after each of `tokens` (B, T), read on from
        `start` (B,).
        """
        nodes = np.zeros(tokens.shape, np.int64)
        contexts = nodes  # the n - 1 tokens before each; -1 stands for what was never seen
        for n in range(1, self.order):
            edges = self._find(contexts, tokens)
            nodes = np.where(edges >= 0, edges + 1, nodes)
            contexts = np.empty_like(contexts)
            contexts[:, 1:] = np.where(edges[:, :-1] >= 0, edges[:, :-1] + 1, -1)
            contexts[:, 0] = self._cut(start, n)
        return nodes

    def probabilities(self, nodes: Ints, out: Floats32) -> None:
        """Fill `out` (M, V) with the probabilities of what follows contexts `nodes` (M,)."""
        table = self._table
        deep = np.flatnonzero(nodes >= len(table))
        if not len(deep):
            np.take(table, nodes, axis=0, out=out, mode="clip")
            return
        chains = [
            (deep, nodes[deep])
        ]  # rows and their nodes, at each step to the suffixes those still too deep
        shallow = nodes.copy()
        while len(deep):
            shallow[deep] = self._suffixes[shallow[deep]]
            deep = deep[shallow[deep] >= len(table)]
            chains.append((deep, shallow[deep]))
        np.take(table, shallow, axis=0, out=out, mode="clip")
        for rows, descended in reversed(chains[:-1]):
            sizes = self._starts[descended + 1] - self._starts[descended]
            edges = np.arange(sizes.sum()) + np.repeat(
                self._starts[descended] - np.cumsum(sizes) + sizes, sizes
            )
            out[rows] *= self._lower32[descended, None]
            out[np.repeat(rows, sizes), self._tokens[edges]] += self._own32[edges]

    @cached_property
    def _table(self) -> Floats32:
        """(R, V) probabilities of the shallowest R contexts, as many as _TABLE_BYTES allows.

        A context's suffix is shallower than it, so each depth is made of the one before.
        """
        rows = max(1, min(self.nodes, _TABLE_BYTES // (4 * self.vocab_size)))
        table = np.full((rows, self.vocab_size), 1 / self.vocab_size, np.float32)
        depths, parents = (
            self._depths[:rows],
            np.repeat(np.arange(rows), np.diff(self._starts[: rows + 1])),
        )
        for depth in range(min(int(depths[-1]) + 1, self.order)):
            first, last = np.searchsorted(depths, [depth, depth + 1])
            if depth:
                table[first:last] = table[self._suffixes[first:last]]
            table[first:last] *= self._lower32[first:last, None]
            edges = slice(self._starts[first], self._starts[last])
            table[parents[edges], self._tokens[edges]] += self._own32[edges]
        return table

    def _cut(self, nodes: Ints, depth: int) -> Ints:
        """The contexts `nodes` (B,) without all but their last `depth` tokens; -1 for those that
        have less.
        """
        while (deeper := self._depths[nodes] > depth).any():
            nodes = np.where(deeper, self._suffixes[nodes], nodes)
        return np.where(self._depths[nodes] == depth, nodes, -1)

    def _find(self, nodes: Ints, tokens: Ints) -> Ints:
        """The edges from `nodes` by `tokens`, -1 where there is none."""
        wanted = (
            np.asarray(nodes, np.int64) * self.vocab_size + tokens
        )  # negative, so not there, for node -1
        edges = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[edges] == wanted, edges, -1)


def _check(trie: Trie, borders: Ints) -> None:
    keys, counts, sizes = trie.keys, trie.counts, np.array(trie.sizes, np.int64)
    fits = len(keys) == len(counts) == borders[-1] and (sizes >= 0).all() and sizes[:1].all()
    if fits and len(keys):
        parents, full = keys // trie.vocab_size, sizes > 0  # a short text has no long n-grams
        first, last = (parents[edges[full]] for edges in (borders[:-1], borders[1:] - 1))
        nodes = np.concatenate([[0], borders[:-2] + 1])  # the first of each depth
        fits = (keys[1:] > keys[:-1]).all() and counts.min() > 0
        fits &= (first >= nodes[full]).all() and (last <= borders[:-1][full]).all()
    if not fits:
        raise ValueError("keys, counts and sizes are not those of the n-grams of a text")
