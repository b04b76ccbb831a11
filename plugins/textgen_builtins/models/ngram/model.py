"""The n-gram model and its decoder."""

from __future__ import annotations

from typing import Final

import numpy as np

from textgen.protocols import Ids, Tensors
from textgen_builtins.models.gate import Gate
from textgen_builtins.models.ngram.recent import EXPERTS, RecentContexts
from textgen_builtins.models.ngram.smoothing import Floats32, Ints
from textgen_builtins.models.ngram.trie import Trie
from textgen_builtins.models.ngram.words import (
    CONTEXTS,
    Hashes,
    WordCounts,
    WordReader,
    context_keys,
)

EXPERT_WEIGHTS: Final = (0.2, 0.35, 0.5)
"""The exponents of the experts where words count; measured on English texts, prose with and without
punctuation.
"""


class NgramModel:
    """textgen.protocols.Model of n-gram counts: up to `order` tokens, over a vocabulary of
    `vocab_size`.

    Without an `order` its trainer chooses one. Where `end` is the token between documents, what
    begins with it is counted as often as it occurs, also below the highest order: a document begins
    whatever came before.

    The model is made of experts, the first of which are the n-grams. With a `reader`, there are
    also counts of what follows the word so far with up to two words before it, as two experts: the
    word so far alone, interpolated with the n-grams; and the longest of the contexts of words,
    interpolated with the shorter ones and the n-grams. With `cache_tokens`, there are two more that
    count the text so far: see RecentContexts. The `gate` mixes them: at first with `expert_weights`
    at every token, later as it was fitted. A model that is a part of a mixture has `fits_gate`
    False: the gate of the mixture weighs its experts.

    Its weights are `counts`, `keys` and `sizes` of a Trie; with several experts also `gate.bias`
    and `gate.slopes`; with a reader, for each number n of words before the word so far,
    `words.n.contexts`, `.counts` and `.edges` of WordCounts. How many there are depends on the
    text, so load_tensors takes any number that fits together.
    """

    def __init__(
        self,
        order: int | None,
        vocab_size: int,
        reader: WordReader | None = None,
        cache_tokens: int = 0,
        end: int | None = None,
    ) -> None:
        self.order, self.reader, self.cache_tokens, self.end = order, reader, cache_tokens, end
        self.fits_gate = True
        self.words: tuple[WordCounts, ...] = ()
        self.trie = Trie(vocab_size, np.empty(0, np.int64), np.empty(0, np.int64), ())
        self.gate = Gate.fixed(self.expert_weights)

    @property
    def expert_weights(self) -> tuple[float, ...]:
        """(E,) the weights of the experts before a gate is fitted to any text."""
        return (EXPERT_WEIGHTS if self.reader else (1.0,)) + (0.0,) * EXPERTS * bool(
            self.cache_tokens
        )

    @property
    def is_gated(self) -> bool:
        """Whether there are several experts, and a gate."""
        return len(self.expert_weights) > 1

    def untrained(self, order: int) -> NgramModel:
        """A model of the same kind, of this order."""
        return NgramModel(order, self.trie.vocab_size, self.reader, self.cache_tokens, self.end)

    def decoder(self, batch_size: int) -> NgramDecoder:
        """A decoder at the start state, in which no token went before."""
        return NgramDecoder(self, batch_size)

    def tensors(self) -> Tensors:
        """`sizes` are of the orders counted so far."""
        words = {
            f"words.{n}.{key}": array
            for n, counts in enumerate(self.words)
            for key, array in counts.tensors().items()
        }
        return self.trie.tensors() | words | (self.gate.tensors() if self.is_gated else {})

    def load_tensors(self, tensors: Tensors) -> None:
        """Take over counts. Raises ValueError where they are not those of such a model."""
        gate = {name: array for name, array in tensors.items() if name.startswith("gate.")}
        counts = {name: array for name, array in tensors.items() if name not in gate}
        # Words are counted last, so there may be none yet.
        has_words = self.reader and any(name.startswith("words.") for name in counts)
        kinds = range(CONTEXTS + 1 if has_words else 0)
        names = {"counts", "keys", "sizes"} | {
            f"words.{n}.{key}" for n in kinds for key in ("contexts", "counts", "edges")
        }
        given = {name: (str(array.dtype), array.ndim) for name, array in counts.items()}
        if given != dict.fromkeys(names, ("int64", 1)):
            raise ValueError(f"the weights are {given}, and should be int64 (N,) {sorted(names)}")
        sizes = tensors["sizes"].tolist()
        if self.order is not None and len(sizes) > self.order:
            raise ValueError(f"the order of these counts is {len(sizes)}, and not {self.order}")
        size = self.trie.vocab_size
        self.trie = Trie(size, tensors["keys"], tensors["counts"], sizes)
        self.words = tuple(
            WordCounts(
                size, *(tensors[f"words.{n}.{key}"] for key in ("contexts", "edges", "counts"))
            )
            for n in kinds
        )
        if self.is_gated:
            own = {name.removeprefix("gate."): array for name, array in gate.items()}
            self.gate = Gate.of_tensors(own, len(self.expert_weights))


class NgramDecoder:
    """textgen.protocols.Decoder.

    It carries for each row the longest context known, the last words, and the text so far.

    It is made of E experts, whose own log probabilities it also gives; a mixture weighs each of
    them.
    """

    def __init__(self, model: NgramModel, batch_size: int) -> None:
        self._model, self._trie = model, model.trie
        self._nodes = np.zeros(batch_size, np.int64)
        self._words, self._last = self._no_words(batch_size)
        self._recent = None
        if model.cache_tokens:
            self._recent = RecentContexts(
                batch_size, model.trie.order, model.trie.vocab_size, model.cache_tokens
            )

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._nodes)

    def extend(self, tokens: Ids) -> Floats32:
        """Logits (B, V) of what follows `tokens` (B, T)."""
        return self._mixed(self.extend_experts(tokens))

    def score(self, tokens: Ids) -> Floats32:
        """Logits (B, T, V) after each of `tokens` (B, T)."""
        experts = self.score_experts(tokens)
        return self._mixed(experts.reshape(-1, *experts.shape[2:])).reshape(*tokens.shape, -1)

    def extend_experts(self, tokens: Ids) -> Floats32:
        """Log probabilities (B, E, V) of what follows `tokens` (B, T)."""
        ids = tokens.astype(np.int64)
        if tokens.shape[1]:
            self._read(ids)
        out = self._probabilities(self._nodes, self._words, self._last)
        if self._recent:
            self._recent.read(ids, out[:, None, -EXPERTS:])
        return np.log(out, out)

    def score_experts(self, tokens: Ids) -> Floats32:
        """Log probabilities (B, T, E, V) after each of `tokens` (B, T)."""
        ids = tokens.astype(np.int64)
        nodes, words = self._read(ids)
        out = self._probabilities(nodes.ravel(), words.reshape(nodes.size, 3), ids.ravel())
        logs = out.reshape(*nodes.shape, *out.shape[1:])
        if self._recent:
            self._recent.read(ids, logs[:, :, -EXPERTS:])
        return np.log(logs, logs)

    def read_state(self) -> Tensors:
        """`context` (B,) int64, the numbers of nodes of this model's trie; `words` (B, 4) int64, if
        words count.

        `past`, `short` and `long` of RecentContexts, if recent tokens count.
        """
        state: Tensors = {"context": self._nodes.copy()}
        if self._model.reader:
            words = self._words.view(np.int64)
            state["words"] = np.concatenate([words, self._last[:, None]], axis=1)
        return state | (self._recent.read_state() if self._recent else {})

    def write_state(self, state: Tensors) -> None:
        """Continue from a state that `read_state` gave, or rows of one.

        Raises ValueError for other numbers.
        """
        nodes = np.array(state["context"], np.int64)
        if nodes.ndim != 1 or (len(nodes) and (nodes.min() < 0 or nodes.max() >= self._trie.nodes)):
            raise ValueError(f"context must be (B,) numbers from 0 to {self._trie.nodes - 1}")
        words, last = self._no_words(len(nodes))
        if self._model.reader:
            given = np.array(state["words"], np.int64)
            if given.shape != (len(nodes), 4):
                raise ValueError(
                    f"words must be of shape {(len(nodes), 4)}, and is of {given.shape}"
                )
            words, last = np.ascontiguousarray(given[:, :3]).view(np.uint64), given[:, 3]
        if self._recent:
            self._recent.write_state(state, len(nodes))
        self._nodes, self._words, self._last = nodes, words, last

    def _no_words(self, batch_size: int) -> tuple[Hashes, Ints]:
        """The words (B, 3), and what stands for the last token (B,), before the first token."""
        last = np.full(batch_size, self._trie.vocab_size, np.int64)
        return np.zeros((batch_size, 3), np.uint64), last

    def _read(self, tokens: Ints) -> tuple[Ints, Hashes]:
        """Read `tokens` (B, T); return the nodes (B, T) and the words (B, T, 3) after each."""
        if tokens.shape[1] == 1:
            nodes = self._trie.advance(self._nodes, tokens[:, 0])[:, None]
        else:
            nodes = self._trie.walk(self._nodes, tokens)
        self._nodes = nodes[:, -1].copy()
        words = np.zeros((*tokens.shape, 3), np.uint64)
        if self._model.reader:
            words = self._model.reader.read(self._words, tokens)
            self._words, self._last = words[:, -1].copy(), tokens[:, -1].copy()
        return nodes, words

    def _probabilities(self, nodes: Ints, words: Hashes, last: Ints) -> Floats32:
        """(M, E, V) by the experts; in the place of those that count the text so far, by the
        n-grams.
        """
        out = np.empty(
            (len(nodes), len(self._model.expert_weights), self._trie.vocab_size), np.float32
        )
        self._trie.probabilities(nodes, out[:, 0])
        out[:, 1:] = out[:, :1]
        if self._model.words:
            keys = context_keys(words, last)
            for kind, counts in enumerate(self._model.words):
                counts.interpolate(keys[kind], out[:, min(kind, 1) + 1])
        return out

    def _mixed(self, experts: Floats32) -> Floats32:
        """Logits (M, V) from log probabilities (M, E, V)."""
        return self._model.gate.mix(experts) if self._model.is_gated else experts[:, 0]
