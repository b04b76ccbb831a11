"""Counts of what follows a word so far and the words before it, whatever stands between them.

Contexts that end at the borders of words are the first that compressors of the PAQ family mix with
their n-grams (Mahoney, "Adaptive weighing of context models for lossless data compression", 2005).
"""

from __future__ import annotations

import re
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.documents import end_id
from textgen.protocols import Ids, Tensors, Tokenizer
from textgen_builtins.models.ngram.smoothing import Floats32, Ints, interpolation
from textgen_builtins.token_texts import token_texts

Hashes = npt.NDArray[np.uint64]

_LETTERS: Final = re.compile(r"[^\W\d_]+")
_HASH_FACTOR: Final = 0x9E3779B97F4A7C15  # odd, so no product of powers of it is 0 modulo 2**64
_MASK: Final = (1 << 64) - 1
_FACTOR64, _SHIFT64 = np.uint64(_HASH_FACTOR), np.uint64(32)
_POSITIVE64: Final = np.uint64((1 << 63) - 1)
CONTEXTS: Final = 2
"""Words before the word so far that it is counted with."""


@attrs.frozen(eq=False)
class WordReader:
    """Follows the words of a text by their hashes: of the word so far, the word before it, and the
    one before that.

    A word is a run of letters, in any case. What a token does to the hash h of the word so far is
    one of h · factor + add, and where it ends the word, `tail`, which begins the next. All arrays
    are (V,) but

    inner   (V, 2) the hashes of the last two whole words inside the token, 0 for each that there is
            not
    """

    factors: Hashes
    adds: Hashes
    ends: npt.NDArray[np.bool_]
    inner: Hashes
    tails: Hashes

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> WordReader | None:
        """A reader of a tokenizer's tokens, None where none has letters.

        The end of a document counts as two words of its own, so that nothing is known of those
        before it.
        """
        effects = [_effect(text) for text in token_texts(tokenizer)]
        if not any(add or tail or any(inner) for _, add, _, inner, tail in effects):
            return None
        if (end := end_id(tokenizer)) is not None:
            effects[end] = 1, 0, True, [_HASH_FACTOR, _HASH_FACTOR], 0
        factors, adds, ends, inner, tails = zip(*effects, strict=True)
        hashes = [np.array(column, np.uint64) for column in (factors, adds, inner, tails)]
        return cls(hashes[0], hashes[1], np.array(ends, np.bool_), hashes[2], hashes[3])

    def read(self, words: Hashes, tokens: Ints) -> Hashes:
        """(B, T, 3) hashes of the last three words after each of `tokens` (B, T), read on from
        `words` (B, 3).
        """
        factors, adds, ends = self.factors[tokens], self.adds[tokens], self.ends[tokens]
        whole = _scan(
            np.where(ends, 0, factors), np.where(ends, self.tails[tokens], adds), words[:, 0]
        )  # (B, T)
        before = np.concatenate([words[:, :1], whole[:, :-1]], axis=1)
        ended = np.where(ends, before * factors + adds, 0)[..., None]
        finished = np.concatenate([ended, self.inner[tokens]], axis=-1)  # (B, T, 3)
        known = np.concatenate(
            [words[:, :0:-1], finished.reshape(len(words), -1)], axis=1
        )  # (B, 2 + 3 T)
        there = known != 0
        there[:, :2] = True  # so that every row has two, and none sees another's
        last = (np.cumsum(there) - 1).reshape(known.shape)[
            :, 4::3
        ]  # (B, T) indices among those that are there
        known = known[there]
        return np.stack([whole, known[last], known[last - 1]], axis=-1)


def context_keys(words: Hashes, tokens: Ints) -> list[Ints]:
    """Keys for 0 to CONTEXTS words before the word so far: a key (...) of the context after
    `tokens` (...).

    words   (..., 3) the hashes of the words there

    The last token is part of each, since it tells what stands between two words.
    """
    key = tokens.astype(np.uint64)
    keys = []
    for word in range(CONTEXTS + 1):
        key = (key ^ (key >> _SHIFT64)) * _FACTOR64 + words[..., word]
        keys.append((key & _POSITIVE64).view(np.int64))
    return keys


class WordCounts:
    """Counts of how often each of V tokens follows each context of one kind.

    Immutable, so threads may share it.

    contexts   (C,) int64, the keys of the contexts, rising
    edges      (E,) int64, number of the context · V + token, rising
    counts     (E,) int64

    Raises ValueError when these do not fit together.
    """

    def __init__(self, vocab_size: int, contexts: Ints, edges: Ints, counts: Ints) -> None:
        self.contexts, self.edges, self.counts = contexts, edges, counts
        parents, tokens = np.divmod(edges, vocab_size)
        starts = np.searchsorted(parents, np.arange(len(contexts) + 1))
        rising = all((np.diff(array) > 0).all() for array in (contexts, edges, starts))
        fits = len(edges) == len(counts) and [starts[0], starts[-1]] == [0, len(edges)]
        if not (rising and fits and (counts > 0).all()):
            raise ValueError("contexts, edges and counts are not those of the words of a text")
        own, lower = interpolation(counts, parents, len(contexts))
        self._starts, self._tokens = starts, tokens
        self._own, self._lower = own.astype(np.float32), lower.astype(np.float32)

    @classmethod
    def count(cls, vocab_size: int, keys: Ints, following: Ids) -> WordCounts:
        """The counts of a text: `following` (N,) is the token after each context, whose keys are
        `keys` (N,).
        """
        contexts, numbers = np.unique(keys, return_inverse=True)
        edges, counts = np.unique(numbers * vocab_size + following, return_counts=True)
        return cls(vocab_size, contexts, edges, counts)

    def tensors(self) -> Tensors:
        """The arguments of the constructor."""
        return {"contexts": self.contexts, "counts": self.counts, "edges": self.edges}

    def interpolate(self, keys: Ints, probabilities: Floats32) -> None:
        """Turn the probabilities (M, V) by a lower order, in place, into those after the contexts
        `keys` (M,).
        """
        if not len(self.contexts):
            return
        numbers = np.minimum(np.searchsorted(self.contexts, keys), len(self.contexts) - 1)
        rows = np.flatnonzero(self.contexts[numbers] == keys)
        numbers = numbers[rows]
        starts = self._starts[numbers]
        sizes = self._starts[numbers + 1] - starts
        edges = np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
        probabilities[rows] *= self._lower[numbers, None]
        probabilities[np.repeat(rows, sizes), self._tokens[edges]] += self._own[edges]


def _effect(text: str) -> tuple[int, int, bool, list[int], int]:
    """A token's factor, addend, whether it ends a word, the last words inside it, and the beginning
    of the next.
    """
    found = list(_LETTERS.finditer(text))
    head = found.pop(0).group() if found and not found[0].start() else ""
    factor = pow(_HASH_FACTOR, len(head.casefold()), 1 << 64)
    if len(head) == len(text):
        return factor, _hash(head), False, [0, 0], 0
    tail = found.pop().group() if found and found[-1].end() == len(text) else ""
    inner = [0, 0, *(_hash(word.group()) for word in found[-2:])][-2:]
    return factor, _hash(head), True, inner, _hash(tail)


def _hash(letters: str) -> int:
    value = 0
    for letter in letters.casefold():
        value = (value * _HASH_FACTOR + ord(letter) + 1) & _MASK
    return value


def _scan(factors: Hashes, adds: Hashes, first: Hashes) -> Hashes:
    """(B, T) h_t = h_(t-1) · factors_t + adds_t for `factors` and `adds` (B, T), h_(-1) being
    `first` (B,).

    A parallel prefix scan. Each token is a map h -> f · h + a, and two maps in a row are one: f2 ·
    (f1 · h + a1) + a2 = (f1 · f2) · h + (f2 · a1 + a2). In round k each map takes in the one 2^k
    tokens before it, so it stands for the last 2^(k+1) tokens. A token that ends a word has factor
    0: the map over it no longer depends on h, and the rounds end when all factors are 0, after as
    many as the longest word has binary digits. For "ab c" with f = 10 and letters a = 1, b = 2, c =
    3, the maps are 10h+1, 10h+2, 0, 10h+3; after round 0 they are 1, 12, 0, 3, since the first has
    taken in `first` = 0.
    """
    factors, adds = factors.copy(), adds.copy()
    adds[:, :1] += first[:, None] * factors[:, :1]
    factors[:, :1] = 0
    reach = 1
    while factors.any():
        adds[:, reach:] += factors[:, reach:] * adds[:, :-reach]
        factors[:, reach:] *= factors[:, :-reach]
        reach *= 2
    return adds
