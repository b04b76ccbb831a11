"""The n-gram model and its decoder."""

from __future__ import annotations

from typing import Final

import attrs
import numpy as np

from textgen.protocols import Ids, Tensors
from textgen_builtins.models.gate import Gate
from textgen_builtins.models.ngram.recent import RecentTokens
from textgen_builtins.models.ngram.smoothing import Floats32, Ints
from textgen_builtins.models.ngram.trie import Trie
from textgen_builtins.models.ngram.words import (
    Hashes,
    WordCounts,
    WordReader,
    context_keys,
    context_keys_of_one,
)

_ONE: Final = (1, 1)
_BLOCK: Final = 1 << 23  # probabilities that `score` works on at once: 32 MiB
_KEPT: Final = (
    1 << 22
)  # bytes of the contexts of one sequence that are kept: texts repeat themselves
EXPERT_WEIGHTS: Final = (0.2, 0.35, 0.5)
"""The exponents of the experts where words count; measured on English texts, prose with and without punctuation."""


class NgramModel:
    """textgen.protocols.Model of n-gram counts: up to `order` tokens, over a vocabulary of `vocab_size`.

    Without an `order` its trainer chooses one. Where `end` is the token between documents, what begins with it is
    counted as often as it occurs, also below the highest order: a document begins whatever came before.

    It is made of experts, the first of which are the n-grams. With a `reader`, there are also counts of what follows
    the word so far with up to `word_contexts` words before it, as two experts: the word so far alone, interpolated with
    the n-grams; and the longest of the contexts of words, interpolated with the shorter ones and the n-grams. With
    `recent`, the last expert is what followed in so many tokens before, interpolated with the n-grams. The `gate`
    mixes them: at first with `expert_weights` at every token, later as it was fitted.

    Its weights are `counts`, `keys` and `sizes` of a Trie, and where n-grams were left out `totals` and `discounts`;
    with several experts also `gate.bias` and `gate.slopes`; with a reader, for
    each number n of words before the word so far, `words.n.contexts`, `.counts` and `.edges` of WordCounts. How many
    there are depends on the text, so load_tensors takes any number that fits together.
    """

    def __init__(
        self,
        order: int | None,
        vocab_size: int,
        word_contexts: int = 0,
        reader: WordReader | None = None,
        recent: int = 0,
        end: int | None = None,
    ) -> None:
        self.order, self.recent, self.end = order, recent, end
        self.reader = reader if word_contexts else None
        self.kinds = word_contexts + 1 if self.reader else 0  # of contexts of words
        self.words: tuple[WordCounts, ...] = ()
        self.trie = Trie(vocab_size, np.empty(0, np.int64), np.empty(0, np.int64), ())
        self.gate = Gate.fixed(self.expert_weights)

    @property
    def expert_weights(self) -> tuple[float, ...]:
        """(E,) the weights of the experts before a gate is fitted to any text."""
        return (EXPERT_WEIGHTS if self.kinds else (1.0,)) + ((0.0,) if self.recent else ())

    @property
    def is_gated(self) -> bool:
        """Whether there are several experts, and a gate."""
        return len(self.expert_weights) > 1

    def untrained(self, order: int) -> NgramModel:
        """Another of its kind, of this order."""
        return NgramModel(
            order, self.trie.vocab_size, max(0, self.kinds - 1), self.reader, self.recent, self.end
        )

    def decoder(self, batch_size: int) -> NgramDecoder:
        """A decoder at the start state, in which no token went before."""
        return NgramDecoder(self, batch_size)

    def tensors(self) -> Tensors:
        """`sizes` are of the orders counted so far."""
        trie = self.trie.tensors()
        words = {
            f"words.{n}.{key}": a
            for n, counts in enumerate(self.words)
            for key, a in counts.tensors().items()
        }
        return trie | words | (self.gate.tensors() if self.is_gated else {})

    def load_tensors(self, tensors: Tensors) -> None:
        """Take over counts. Raises ValueError where they are not those of such a model."""
        pruned = {"totals", "discounts"} if "totals" in tensors else set()
        names = {"counts", "keys", "sizes"} | pruned
        has_words = any(
            name.startswith("words.") for name in tensors
        )  # counted last, so there may be none yet
        if has_words:
            names |= {
                f"words.{n}.{key}"
                for n in range(self.kinds)
                for key in ("contexts", "counts", "edges")
            }
        counts = {name: array for name, array in tensors.items() if not name.startswith("gate.")}
        if counts.keys() != names:
            raise ValueError(
                f"the weights are {', '.join(sorted(tensors)) or 'none'}, and should be {sorted(names)}"
            )
        for name, array in counts.items():
            dtype, axes = (np.float64, 2) if name == "discounts" else (np.int64, 1)
            small = name == "counts" and array.dtype == np.uint32
            if (array.dtype != dtype and not small) or array.ndim != axes:
                of = "float64 of shape (orders, 3)" if axes == 2 else "int64 of shape (N,)"
                raise ValueError(
                    f"{name} is {array.dtype} of shape {array.shape}, and should be {of}"
                )
        sizes = tensors["sizes"].tolist()
        if self.order is not None and len(sizes) > self.order:
            raise ValueError(
                f"these are counts up to order {len(sizes)}, and the model's order is {self.order}"
            )
        size = self.trie.vocab_size
        left_out = [tensors[name] for name in ("totals", "discounts") if pruned]
        self.trie = Trie(size, tensors["keys"], tensors["counts"], sizes, *left_out)
        kinds = range(self.kinds if has_words else 0)
        parts = (
            {key: tensors[f"words.{n}.{key}"] for key in ("contexts", "edges", "counts")}
            for n in kinds
        )
        self.words = tuple(WordCounts(size, **part) for part in parts)
        if self.is_gated:
            self.gate = Gate.of_tensors(tensors, len(self.expert_weights))


@attrs.define(eq=False)
class _Place:
    """A context of one sequence: its node, words and last token, and where tokens lead.

    probabilities   (V,) by the n-grams
    logs            (E, V) what the experts say, but for that of recent tokens
    """

    state: tuple[int, list[int], int]
    probabilities: Floats32
    logs: Floats32
    following: dict[int, _Place] = attrs.field(factory=dict)


class NgramDecoder:
    """textgen.protocols.Decoder. It carries for each row the longest context known, and the last words and tokens.

    It is made of E experts, whose own log probabilities it also gives; a mixture weighs each of them.
    """

    def __init__(self, model: NgramModel, batch_size: int) -> None:
        self._model, self._trie = model, model.trie
        self._reader = model.reader
        self._experts = len(model.expert_weights)
        recent = (
            RecentTokens.none(batch_size, model.recent, model.trie.order) if model.recent else None
        )
        nodes, words = np.zeros(batch_size, np.int64), np.zeros((batch_size, 3), np.uint64)
        self._set(nodes, words, self._no_token(batch_size), recent)

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
        """Log probabilities (B, E, V) of what follows `tokens` (B, T), not to be written to.

        The array may be used again by the next call.
        """
        if tokens.shape == _ONE:
            return self.experts_after(tokens.item())[None]
        if tokens.shape[1]:
            self._read(tokens.astype(np.int64))
            if self._recent:
                self._recent.append(tokens)
        self._save()
        self._fill(self._nodes, self._words, self._last, self._logs)
        if self._recent:
            self._recent.interpolate(self._logs[:, -1])
        return np.log(self._logs, self._logs)

    def score_experts(self, tokens: Ids) -> Floats32:
        """Log probabilities (B, T, E, V) after each of `tokens` (B, T)."""
        ids = tokens.astype(np.int64)
        nodes, words = self._read(ids)
        out = np.empty((nodes.size, *self._logs.shape[1:]), np.float32)
        flat, last = words.reshape(nodes.size, -1), ids.ravel()
        step = max(1, _BLOCK // out[0].size)
        for first in range(0, len(out), step):
            rows = slice(first, first + step)
            self._fill(nodes.ravel()[rows], flat[rows], last[rows], out[rows])
        logs = out.reshape(*nodes.shape, *out.shape[1:])
        if self._recent:
            self._recent.read(ids, logs[:, :, -1])
        return np.log(logs, logs)

    def read_state(self) -> Tensors:
        """`context` (B,) int64, the numbers of nodes of this model's trie; `words` (B, 4) int64, if words count.

        `recent` (B, R) int32, if recent tokens do: the last R, negative before the beginning.
        """
        self._save()
        state: Tensors = {"context": self._nodes.copy()}
        if self._reader:
            state["words"] = np.concatenate(
                [self._words.view(np.int64), self._last[:, None]], axis=1
            )
        if self._recent:
            state["recent"] = self._recent.tokens.copy()
        return state

    def write_state(self, state: Tensors) -> None:
        """Go on from a state that `read_state` gave, or rows of one. Raises ValueError for other numbers."""
        nodes = np.array(state["context"], np.int64)
        if nodes.ndim != 1 or (len(nodes) and (nodes.min() < 0 or nodes.max() >= self._trie.nodes)):
            raise ValueError(f"context must be (B,) numbers from 0 to {self._trie.nodes - 1}")
        words, last = np.zeros((len(nodes), 3), np.uint64), self._no_token(len(nodes))
        if self._reader:
            given = np.array(state["words"], np.int64)
            if given.shape != (len(nodes), 4):
                raise ValueError(
                    f"words must be of shape {(len(nodes), 4)}, and is of {given.shape}"
                )
            words, last = np.ascontiguousarray(given[:, :3]).view(np.uint64), given[:, 3]
        recent = None
        if self._recent:
            tokens = np.asarray(state["recent"])
            if (
                tokens.shape != (len(nodes), self._model.recent)
                or (tokens >= self._trie.vocab_size).any()
            ):
                raise ValueError(
                    f"recent must be {(len(nodes), self._model.recent)} tokens, and is {tokens.shape}"
                )
            recent = RecentTokens.of(tokens, self._trie.order)
        self._set(nodes, words, last, recent)

    def _set(self, nodes: Ints, words: Hashes, last: Ints, recent: RecentTokens | None) -> None:
        self._nodes, self._words, self._last, self._recent = nodes, words, last, recent
        self._unsaved: tuple[int, list[int], int] | None = (
            None  # node, words and token of one, where these are behind
        )
        self._places: dict[tuple[int, ...], _Place] = {}  # of a batch of one, by its context
        self._place: _Place | None = None  # where it is, if that is one of them
        self._scratch = np.empty(self._trie.vocab_size, np.float32)
        self._logs = np.empty((len(nodes), self._experts, self._trie.vocab_size), np.float32)

    def _no_token(self, batch_size: int) -> Ints:
        """(B,) what stands for the last token where there was none."""
        return np.full(batch_size, self._trie.vocab_size, np.int64)

    def _read(self, tokens: Ints) -> tuple[Ints, Hashes]:
        """Read `tokens` (B, T); return the nodes (B, T) and the words (B, T, 3), or (B, T, 0), after each."""
        self._save()
        self._place = None
        one = tokens.shape[1] == 1
        trie = self._trie
        nodes = (
            trie.advance(self._nodes, tokens[:, 0])[:, None]
            if one
            else trie.walk(self._nodes, tokens)
        )
        self._nodes = nodes[:, -1].copy()
        words = np.empty((*tokens.shape, 0), np.uint64)
        if self._reader:
            words = self._reader.read(self._words, tokens)
            self._words, self._last = words[:, -1].copy(), tokens[:, -1].copy()
        return nodes, words

    def _fill(self, nodes: Ints, words: Hashes, last: Ints, out: Floats32) -> None:
        """Fill `out` (M, E, V) with the experts' probabilities; where recent tokens are one, with the n-grams'."""
        self._trie.probabilities(nodes, out[:, 0])
        out[:, 1:] = out[:, :1]
        if self._reader:
            for kind, (keys, counts) in enumerate(
                zip(self._keys(words, last), self._model.words, strict=False)
            ):
                counts.interpolate(keys, out[:, min(kind, 1) + 1])

    def _keys(self, words: Hashes, last: Ints) -> list[Ints]:
        return context_keys(words, last, self._model.kinds - 1)

    def experts_after(self, token: int) -> Floats32:
        """`extend_experts` of a batch of one by one token: (E, V)."""
        place = self._place and self._place.following.get(token)
        if place is None:
            place = self._find_place(token)
        self._place, self._unsaved = place, place.state
        if self._recent is None:
            return place.logs
        logs: Floats32 = self._logs[0]
        logs[:-1], last = place.logs, logs[-1:]
        last[0] = place.probabilities
        self._recent.append_one(token)
        if self._recent.interpolate(last):
            np.log(last, last)
        else:
            last[0] = place.logs[0]
        return logs

    def _find_place(self, token: int) -> _Place:
        """Where `token` leads to, kept where it is not too large."""
        node, words, _ = self._unsaved or (int(self._nodes[0]), self._words[0].tolist(), 0)
        node = self._trie.advance_one(node, token)
        if self._reader:
            words = self._reader.read_one(words, token)
        experts = self._logs[0] if self._recent is None else self._logs[0, :-1]
        if self._logs.nbytes > _KEPT // 64:
            return self._place_of(node, words, token, experts)
        context = (node, token, *words)
        place = self._places.get(context)
        if place is None:
            if len(self._places) * self._logs.nbytes >= _KEPT:
                self._places.clear()
                self._place = None
            place = self._places[context] = self._place_of(
                node, words, token, np.empty_like(experts)
            )
        if self._place is not None:
            self._place.following[token] = place
        return place

    def _place_of(self, node: int, words: list[int], token: int, out: Floats32) -> _Place:
        """The context, whose experts' log probabilities are written into `out`."""
        self._trie.probabilities_of_one(node, out[0], self._scratch)
        probabilities = out[0].copy()
        if self._reader:
            out[1:] = out[0]
            keys = context_keys_of_one(words, token, self._model.kinds - 1)
            for kind, (key, counts) in enumerate(zip(keys, self._model.words, strict=False)):
                counts.interpolate_one(key, out[1 if kind == 0 else 2], self._scratch)
        return _Place((node, words, token), probabilities, np.log(out, out))

    def _save(self) -> None:
        """Bring the state of a batch of one up to date."""
        if self._unsaved:
            (self._nodes[0], words, self._last[0]), self._unsaved = self._unsaved, None
            self._words = np.array([words], np.uint64)

    def _mixed(self, experts: Floats32) -> Floats32:
        """Logits (M, V) from log probabilities (M, E, V)."""
        if self._experts == 1:
            return experts[:, 0].copy() if len(experts) == 1 else experts[:, 0]
        gate = self._model.gate
        return gate.mix_one(experts[0].copy())[None] if len(experts) == 1 else gate.mix(experts)
