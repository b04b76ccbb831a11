"""Training data: a corpus as token ids, in windows; and a random order that needs no
memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

Ids: TypeAlias = npt.NDArray[np.integer[Any]]
"""Token ids, as in textgen.protocols, which does not import NumPy."""
_FEISTEL_ROUNDS: Final = 6
_ORDERED_AT_ONCE: Final = 1 << 16
_PAST_TOKENS: Final = 512  # tokens of its past that a span of a text reads
_MIN_SPAN: Final = 512  # tokens that make a span worth it
_MAX_CONTEXT: Final = 2048  # tokens of a span for a model to which later tokens cost more


@attrs.frozen(eq=False)
class Windows:
    """Windows of `length` tokens at every `stride`, each with the token that follows every
    position.
    """

    tokens: Ids
    length: int
    stride: int

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.length - 1) // self.stride + 1)

    def take(self, indices: Ids) -> npt.NDArray[np.int64]:
        """(len(indices), length + 1) int64: columns 0 to length - 1 are the inputs, 1 to length the
        targets.
        """
        view = np.lib.stride_tricks.sliding_window_view(self.tokens, self.length + 1)
        return view[np.asarray(indices) * self.stride].astype(np.int64)


@attrs.frozen(eq=False, kw_only=True)
class Dataset:
    """A corpus ready to train on.

    training, validation    (N,) token ids, memory-mapped; validation may be empty. Of documents,
                            there is an end id before the first and after each. A share is held out
                            from the border of two on, whose id ends the one part and begins the
                            other; a number of windows or of tokens begins and ends anywhere. What
                            belongs together, such as pairs of documents, may be cut apart
    window_length, window_stride   as the pipeline's `[data]` table says
    characters_per_token    measured; 1.0 for a character tokenizer
    """

    training: Ids
    validation: Ids
    vocab_size: int
    window_length: int
    window_stride: int
    characters_per_token: float = 1.0

    def training_windows(self) -> Windows:
        """The windows to train on."""
        return Windows(self.training, self.window_length, self.window_stride)

    def validation_windows(self) -> Windows:
        """The windows to validate on."""
        return Windows(self.validation, self.window_length, self.window_stride)


def sample_spans(tokens: Ids, size: int, spans: int) -> Ids:
    """At most `size` of the tokens (N,): all, or as many in at most `spans` spans,
    of which the first begins the text and the last ends it.
    """
    if len(tokens) <= size:
        return tokens
    spans = min(spans, size)
    borders = np.linspace(0, size, spans + 1).astype(int)
    gaps = np.linspace(0, len(tokens) - size, spans).astype(int)
    starts, ends = borders[:-1] + gaps, borders[1:] + gaps
    return np.concatenate([tokens[a:b] for a, b in zip(starts, ends, strict=True)])


def side_by_side(
    tokens: Ids, rows: int, context: int | None = None
) -> Iterator[tuple[npt.NDArray[np.int64], Ids]]:
    """A text (N,) in spans that a model reads side by side, to measure its loss as if it were
    one stream.

    Yields arrays (B, T + 1), B at most `rows`, and for each row the number of predictions at its
    end that count (B,); N - 1 in all. All rows but the first read about 500 tokens of their past
    first. A text of one token yields nothing.

    context  the tokens that the model attends to at most, of which T is at most 2,048; None without
             a limit, and then there is one array
    """
    total = len(tokens) - 1
    if total < 1:
        return
    most = total if context is None else min(context, _MAX_CONTEXT)
    past = min(_PAST_TOKENS, most // 2)
    fewest = math.ceil((total - past) / (most - past))  # spans that the context allows
    spans = max(1, fewest, min(rows, (total - past) // _MIN_SPAN))
    span = math.ceil((total - past) / spans)
    length = min(total, past + span)
    starts = np.minimum(np.arange(spans) * span, total - length)
    ends = starts + length
    counts = np.diff(ends, prepend=0)
    for first in range(0, spans, rows):
        some = slice(first, first + rows)
        yield tokens[starts[some, None] + np.arange(length + 1)].astype(np.int64), counts[some]


def shuffled(size: int, start: int, stop: int, *key: int) -> npt.NDArray[np.int64]:
    """The numbers from index `start` to `stop` in a random order of 0 to size - 1, which needs no
    memory.

    A Feistel network over the next power of four, keyed by `key`, with cycle walking: values that
    fall outside are mapped again until they fall inside (Black and Rogaway, "Ciphers with arbitrary
    finite domains", 2002). The same key gives the same order, so a resumed run needs only its
    position.
    """
    stop, first = min(stop, size), start - start % _ORDERED_AT_ONCE
    last = max(stop, min(first + _ORDERED_AT_ONCE, size))
    return _permuted(size, first, last, key)[start - first : stop - first]


@functools.lru_cache(maxsize=4)  # a block costs little more than a batch
def _permuted(size: int, start: int, stop: int, key: tuple[int, ...]) -> npt.NDArray[np.int64]:
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half_bits) - 1), np.uint64(half_bits)
    round_keys = np.random.SeedSequence(key).generate_state(_FEISTEL_ROUNDS, np.uint64)

    def permute(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> shift, values & mask
        for round_key in round_keys:
            left, right = right, left ^ (splitmix(right ^ round_key) & mask)
        return (left << shift) | right

    values = permute(np.arange(start, stop, dtype=np.uint64))
    while len(outside := np.flatnonzero(values >= size)):
        values[outside] = permute(values[outside])
    return values.astype(np.int64)


def splitmix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every input bit reaches every
    output bit.
    """
    words = words ^ (words >> np.uint64(30))
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words
