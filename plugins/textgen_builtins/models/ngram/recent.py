"""Counts of the text so far: what followed each of its contexts the last few times.

A text's own names, phrases and style come back. Cache models (Kuhn and De Mori, "A cache-based
natural language model for speech recognition", 1990) count them as the text goes on. Here contexts
of several lengths are counted apart from the training text, in hash tables of a fixed size, as
compressors of the PAQ family do (Mahoney, "Adaptive weighing of context models for lossless data
compression", 2005).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textgen.protocols import Tensors
from textgen_builtins.models.ngram.smoothing import Floats32, Ints

Entries = npt.NDArray[np.unsignedinteger[Any]]
Hashes = npt.NDArray[np.uint64]

EXPERTS: Final = 2
_EIGHTHS: Final = (2, 3, 4, 6, 9, 12)  # lengths of contexts, in eighths of the order of the n-grams
_FOLLOWERS: Final = (32, 4)  # tokens remembered of a short and of a long context
_LENGTHS_OF_EXPERT: Final = len(_EIGHTHS) // EXPERTS  # lengths of an expert
_MOST_COUNTED: Final = (3, 1)  # of one token after a context
_DISCOUNTS: Final = (0.7, 0.8)  # taken from each count, and given to the shorter contexts
_CHECKS: Final = 256  # values of an entry's check, which tells contexts in one slot apart
_TOKENS, _VALUES = 1 << 13, 1 << 20  # read at once in all rows, and their probabilities
_HASH_FACTOR: Final = 0x9E3779B97F4A7C15
_FACTOR64, _SHIFT = np.uint64(_HASH_FACTOR), np.uint64(32)
_HIGH_SHIFT, _LOW_MASK = np.uint64(56), np.uint64((1 << 32) - 1)


class RecentContexts:
    """The tokens that followed the contexts of B texts, in tables of a fixed size.

    There are two experts. One knows this text alone: the counts of three short lengths are
    interpolated with each other and the uniform distribution. The other interpolates those of three
    longer lengths with the n-grams.

    For each length a text has S slots of M entries, about `cache_tokens` in all. A context's hash
    says its slot; an entry is a token that followed, and 8 more bits of it. A new entry drops the
    oldest of its slot, so a frequent context keeps its last M followers, and a rare one lasts until
    others have taken its place. Counts above 3, or of longer contexts above 1, tell no more:
    held-out text is predicted as well without them, and texts that are made loop less.

    past     (B, L) int64, the last tokens, negative before the beginning
    short    (B, 3, S, M) unsigned: 0, or check · (V + 1) + token + 1, the newest first
    long     (B, 3, S, M), of the longer contexts
    """

    def __init__(self, batch_size: int, order: int, vocab_size: int, cache_tokens: int) -> None:
        """Tables before the first token of each text.

        order          of the n-grams, by which the lengths of contexts are chosen
        cache_tokens   tokens of the text so far that each table has room for, above 0
        """
        lengths: list[int] = []
        for eighths in _EIGHTHS:
            lengths.append(max((order * eighths + 4) // 8, lengths[-1] + 1 if lengths else 1))
        self._lengths, self._base = np.array(lengths), vocab_size + 1
        powers = [pow(_HASH_FACTOR, power, 1 << 64) for power in range(1, lengths[-1] + 1)]
        self._powers = np.array(powers, np.uint64)
        kind = np.min_scalar_type(_CHECKS * self._base - 1)
        self._past = np.full((batch_size, lengths[-1]), -1)
        self._tables = []
        for most in _FOLLOWERS:
            followers = min(most, cache_tokens)
            shape = (batch_size, _LENGTHS_OF_EXPERT, cache_tokens // followers, followers)
            self._tables.append(np.zeros(shape, kind))

    def read_state(self) -> Tensors:
        """Copies of `past`, `short` and `long`."""
        short, long = self._tables
        return {"past": self._past.copy(), "short": short.copy(), "long": long.copy()}

    def write_state(self, state: Tensors, batch_size: int) -> None:
        """Continue from such arrays, or rows of them.

        Raises ValueError if they are not of this model.
        """
        given = [np.array(state[name], order="C") for name in ("past", "short", "long")]
        expected = [self._past, *self._tables]
        kinds = [(batch_size, *array.shape[1:], array.dtype) for array in expected]
        if [(*array.shape, array.dtype) for array in given] != kinds or (
            given[0] >= self._base - 1
        ).any():
            raise ValueError(f"past, short and long must be arrays {kinds} of tokens")
        self._past, *self._tables = given

    def read(self, tokens: Ints, out: Floats32) -> None:
        """Append `tokens` (B, T), and interpolate `out` (B, N, 2, V), in place, after each of the
        last N of them.

        `out` has the probabilities by the n-grams. Where T is 0, N is 1: after the tokens read
        before.
        """
        out[:, :, 0] = 1 / out.shape[3]
        (rows, asked, _, size), count = out.shape, tokens.shape[1]
        step = max(1, min(_TOKENS, _VALUES // size) // max(1, rows))
        for start in range(0, max(1, count), step):
            scored = slice(max(0, start - count + asked), max(0, start + step - count + asked))
            self._read(tokens[:, start : start + step], out[:, scored] if count else out)

    def _read(self, tokens: Ints, out: Floats32) -> None:
        """`read` of tokens that are all fed at once."""
        rows, asked, _, size = out.shape
        text, first = np.concatenate([self._past, tokens], axis=1), tokens.shape[1] + 1 - asked
        hashes = self._hashes(text).reshape(EXPERTS, _LENGTHS_OF_EXPERT, rows, -1)
        checks, hashes = (
            (hashes >> _HIGH_SHIFT).astype(np.int64),
            (hashes & _LOW_MASK).astype(np.int64),
        )
        entries = checks[..., :-1] * self._base + (tokens + 1)
        starts = (
            np.arange(rows)[:, None] * _LENGTHS_OF_EXPERT
            + np.arange(_LENGTHS_OF_EXPERT)[:, None, None]
        )
        self._past = text[:, tokens.shape[1] :]
        for expert, table in enumerate(self._tables):
            slots, new = table.shape[2], entries[expert].astype(table.dtype)
            slot = hashes[expert] % slots + starts * slots
            found = _exchange(table.reshape(-1, table.shape[3]), slot, new, first)
            check, token = np.divmod(found, self._base)
            known = (check == checks[expert, ..., first:].reshape(-1, 1)) & (token > 0)
            mixed = out[:, :, expert].reshape(-1, size)
            _interpolate(known, token, mixed, _MOST_COUNTED[expert], _DISCOUNTS[expert])
            out[:, :, expert] = mixed.reshape(rows, asked, size)

    def _hashes(self, text: Ints) -> Hashes:
        """(6, B, T + 1) hashes of the contexts of `text` (B, L + T): before its last T tokens, and
        after each.
        """
        length = len(self._powers)
        indices = np.arange(length, text.shape[1] + 1)[:, None] - np.arange(1, length + 1)
        terms = (text[:, indices] + 2).astype(np.uint64) * self._powers  # (B, T + 1, L)
        sums = np.cumsum(terms, axis=2)[:, :, self._lengths - 1].transpose(2, 0, 1)
        hashes: Hashes = (sums ^ (sums >> _SHIFT)) * _FACTOR64
        return hashes


def _exchange(table: Entries, slot_at: Ints, new: Entries, first: int) -> Entries:
    """Put the entries `new` (..., T) into slots of `table` (P, M) in order, and look into slots
    meanwhile.

    slot_at  (..., T + 1) the index of a slot for each time t. Entry t goes into slot_at[..., t]

    Returns (Q, M), the newest first: for each time t from `first` on, what is in its slot after the
    entries before t.
    """
    count, asked = slot_at.shape[-1], slot_at[..., first:].reshape(-1)
    if count <= 2:  # no slot takes two, as the step of a text that is made
        slots = slot_at[..., :-1].reshape(-1)
        table[slots] = np.concatenate([new.reshape(-1, 1), table[slots, :-1]], axis=1)
        return table[asked]
    moments = slot_at * count + np.arange(count)
    order = np.argsort(moments[..., :-1], axis=None)
    made, entries = moments[..., :-1].reshape(-1)[order], new.reshape(-1)[order]
    slots = made // count
    last = np.flatnonzero(np.diff(slots, append=-1))  # of the entries of each slot
    here = np.concatenate([asked, slots[last]])
    stop = np.concatenate([np.searchsorted(made, moments[..., first:].reshape(-1)), last + 1])
    older = np.arange(table.shape[1]) - (stop - np.searchsorted(made, here * count))[:, None]
    found: Entries = table[here[:, None], np.maximum(older, 0)]
    queries, fresh = (older < 0).nonzero()
    found[queries, fresh] = entries[stop[queries] - 1 - fresh]
    table[slots[last]] = found[len(asked) :]
    return found[: len(asked)]


def _interpolate(
    known: npt.NDArray[np.bool_], tokens: Entries, mixed: Floats32, most: int, discount: float
) -> None:
    """Turn probabilities `mixed` (R, V) into those by contexts of three lengths, in place, from
    short to long.

    tokens   (3 R, M), 1 above those that followed in each row after each context, as far as they
             are `known` (3 R, M)
    most     what is counted of a token at most, less the `discount`
    """
    rows, size = mixed.shape
    queries, columns = known.nonzero()
    edges = queries * size + tokens[queries, columns] - 1
    counts = np.bincount(edges, minlength=_LENGTHS_OF_EXPERT * rows * size).astype(np.float32)
    counts = np.minimum(counts, most, out=counts).reshape(_LENGTHS_OF_EXPERT, rows, size)
    totals = counts.sum(axis=2, keepdims=True)
    freed = np.count_nonzero(counts, axis=2)[..., None] * np.float32(discount)
    freed += totals == 0  # a context that was never seen leaves all to the shorter ones
    np.maximum(totals, 1, out=totals)
    counts -= np.float32(discount)
    np.maximum(counts, 0, out=counts)
    counts /= totals
    for own, left in zip(counts, freed.astype(np.float32) / totals, strict=True):
        mixed *= left
        mixed += own
