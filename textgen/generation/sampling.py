"""The draw of a token: what samplers see of a text, its random numbers, and the choice by inverse
CDF.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.data import splitmix
from textgen.protocols import Array, Floats, Ids, Tensors

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_NUMBERS_AT_ONCE: Final = 2048  # random numbers of next steps: each step by itself takes longer
_LARGE_VOCABULARY: Final = (
    4096  # tokens of a vocabulary, from which on blocks of them are summed first
)
_BLOCK: Final = 256
_DRAW: Final = 2**32  # in place of a sampler's place: no chain is as long


@attrs.define(eq=False, repr=False)
class SequenceHistory:
    """textgen.protocols.History of B rows, as far as `level` says.

    arrays  "streams" (B, 2), seed and index of each row; lengths and counts; the states of
            samplers. Each has the rows as its first axis
    """

    level: str
    arrays: Tensors
    _tokens: list[array[int]] = attrs.field(factory=list)
    _link: Any = None  # the sampler that sees it
    _ahead: Floats | None = attrs.field(init=False, default=None)
    _ahead_from: int = attrs.field(init=False, default=0)

    def __getattr__(self, name: str) -> Any:
        """An array by its name."""
        if name in self.arrays:
            return self.arrays[name]
        raise UnannouncedError(name)

    @classmethod
    def begin(
        cls, vocab_size: int, level: str, prompts: Sequence[Ids], streams: Sequence[tuple[int, int]]
    ) -> SequenceHistory:
        """Rows that have drawn nothing yet, with the seed and index of each."""
        lengths = np.array([len(ids) for ids in prompts], np.int64)
        arrays: Tensors = {
            "streams": np.array(streams, np.uint64),
            "prompt_lengths": lengths,
            "lengths": np.zeros_like(lengths),
        }
        if level != "none":
            counted = [np.bincount(ids, minlength=vocab_size) for ids in prompts]
            arrays["prompt_counts"] = np.array(counted, np.int32)
            arrays["counts"] = np.zeros_like(arrays["prompt_counts"])
        tokens = [array("q", ids.tolist()) for ids in prompts] if level == "tokens" else []
        return cls(level, arrays, tokens)

    def numbers(self) -> Floats:
        """(B, n) random numbers of [0, 1) for the draws of the next token and of some after it."""
        lengths = self.arrays["lengths"]
        column = int(lengths[0]) - self._ahead_from
        if self._ahead is None or not 0 <= column < self._ahead.shape[1]:
            count = max(1, min(256, _NUMBERS_AT_ONCE // len(lengths)))
            steps = lengths[:, None] + np.arange(count)
            self._ahead = step_numbers(self.arrays["streams"], steps, _DRAW, 1)[..., 0]
            self._ahead_from, column = int(lengths[0]), 0
        return self._ahead[:, column:]

    def seen_by(self, link: Any) -> SequenceHistory:
        """The same rows, as the sampler of a Link sees them."""
        return SequenceHistory(self.level, self.arrays, self._tokens, link)

    @property
    def state(self) -> Tensors:
        """The sampler's own."""
        if self._link is None or not self._link.has_state:
            raise UnannouncedError("state")
        made: Tensors = self._link.state(self)
        return made

    def random(self, count: int = 1) -> Floats:
        """(B, count) numbers from [0, 1)."""
        if self._link is None or not self._link.random:
            raise UnannouncedError("random")
        return step_numbers(self.streams, self.lengths, self._link.place, count)

    def tokens(self, row: int) -> Ids:
        """(N,) ids of a row."""
        if self.level != "tokens":
            raise UnannouncedError("tokens")
        return np.array(self._tokens[row], np.int64)

    def rows(self, rows: Sequence[int]) -> SequenceHistory:
        """A history of these rows, in this order; a row may be taken twice."""
        tokens = [self._tokens[row][:] for row in rows] if self._tokens else []
        return SequenceHistory(
            self.level, {name: values[rows] for name, values in self.arrays.items()}, tokens
        )

    def put(self, rows: Sequence[int], other: SequenceHistory) -> None:
        """Replace these rows by those of another history of the same chain."""
        for name, values in self.arrays.items():
            values[rows] = other.arrays[name]
        for row, ids in zip(rows, other._tokens, strict=False):
            self._tokens[row] = ids

    def join(self, other: SequenceHistory) -> None:
        """Append the rows of another history of the same chain."""
        self._ahead = None
        for name, values in self.arrays.items():
            self.arrays[name] = np.concatenate([values, other.arrays[name]])
        self._tokens += other._tokens

    def add(self, tokens: Ids) -> None:
        """Note one generated token (B,) for each row."""
        lengths = self.arrays["lengths"]
        lengths += 1
        if self.level != "none":
            self.arrays["counts"][np.arange(len(tokens)), tokens] += 1
        if self._tokens:
            for ids, token in zip(self._tokens, tokens.tolist(), strict=True):
                ids.append(token)

    def save_row(self, row: int) -> Tensors:
        """A row as arrays for a saved state."""
        kept = {name: values[[row]] for name, values in self.arrays.items() if name != "streams"}
        return {**kept, "tokens": self.tokens(row)} if self._tokens else kept

    def load_row(self, row: int, saved: Tensors) -> None:
        """Put a saved row before what this one has: a prompt that is added to it.

        What was not saved stays as it is: a sampler that was not there then starts here. Raises
        ValueError for an array of another shape.
        """
        for name, values in self.arrays.items():
            before = saved.get(name)
            if before is None:
                continue
            if before.shape != (1, *values.shape[1:]):
                raise ValueError(f"{name} has the shape {before.shape[1:]}, not {values.shape[1:]}")
            is_sum = name in ("prompt_lengths", "prompt_counts")
            values[row] = before[0] + values[row] if is_sum else before[0]
        if self._tokens and "tokens" in saved:
            self._tokens[row][:0] = array("q", saved["tokens"].astype(np.int64).tolist())


class UnannouncedError(AttributeError):
    """A sampler reads what it has not announced."""

    def __init__(self, name: str) -> None:
        cause = f"no sampler has announced that it reads {name}; see textgen.protocols.Sampler"
        super().__init__(cause, name=name)


def step_numbers(
    streams: npt.NDArray[np.uint64], steps: npt.NDArray[np.int64], place: int, count: int
) -> Floats:
    """(B, ..., count) numbers of [0, 1) for the sampler at a place of the chain, at steps (B, ...)
    of B streams.

    The words are hashed one after the other with the mix of SplitMix64 (Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", 2014), whose stream from there on gives the
    numbers.
    """
    rows = splitmix((splitmix(streams[:, 0] + _GAMMA) ^ streams[:, 1]) + _GAMMA)
    state = rows.reshape(-1, *[1] * (steps.ndim - 1)) ^ steps.astype(np.uint64)
    state = splitmix(state + _GAMMA)
    state = splitmix((state ^ np.uint64(place)) + _GAMMA)
    numbers = splitmix(state[..., None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(logits: npt.NDArray[Any], uniforms: Floats) -> Ids | None:
    """Draw a token by inverse CDF for each row of logits (B, V); None if a row has none to draw.

    Token i is drawn when the cumulative weight of 0 to i is the first above the uniform number
    times the total, so a token of weight zero never is. The factor keeps the product below the
    total when the number is next to 1.
    """
    if logits.shape[-1] >= _LARGE_VOCABULARY:
        each = [draw_one(*pair) for pair in zip(logits, uniforms.tolist(), strict=True)]
        return None if None in each else np.array(each)
    with np.errstate(invalid="ignore"):
        cdf = np.exp(logits - logits.max(axis=-1, keepdims=True)).cumsum(axis=-1, dtype=np.float64)
    total = cdf[:, -1]
    if not isfinite(total.sum()):
        return None
    threshold = uniforms * (total * (1 - 2**-52))
    drawn: Ids = (cdf <= threshold[:, None]).sum(axis=-1)
    return drawn


def draw_one(row: npt.NDArray[Any], uniform: float) -> int | None:
    """`draw` for one row of logits (V,), with less work."""
    peak = row.max()
    if not isfinite(peak):
        return None
    weights = np.exp(row - peak)
    if len(row) >= _LARGE_VOCABULARY:
        return _draw_large(weights, uniform)
    cdf = np.add.accumulate(weights, dtype=np.float64)
    return int(cdf.searchsorted(uniform * (cdf.item(-1) * (1 - 2**-52)), side="right"))


def _draw_large(weights: npt.NDArray[Any], uniform: float) -> int:
    """The token of weights (V,), from the sums of blocks and then those within one block."""
    starts = np.arange(0, len(weights), _BLOCK)
    ends = np.add.accumulate(np.add.reduceat(weights, starts, dtype=np.float64))
    threshold = uniform * (ends.item(-1) * (1 - 2**-52))
    block = int(ends.searchsorted(threshold, side="right"))
    first = block * _BLOCK
    inner = weights[first : first + _BLOCK]
    cdf = np.add.accumulate(inner, dtype=np.float64) + (ends.item(block - 1) if block else 0.0)
    last = int(inner.nonzero()[0][-1])  # where this sum, in another order, ends below the block's
    return first + min(last, int(cdf.searchsorted(threshold, side="right")))


def likeliest(logits: npt.NDArray[Any]) -> Ids | None:
    """The first of the likeliest tokens for each row of logits (B, V); None if a row has none."""
    drawn: Ids = logits.argmax(axis=-1)
    return drawn if np.isfinite(logits[np.arange(len(drawn)), drawn]).all() else None


def to_numpy(values: Array) -> npt.NDArray[Any]:
    """An array as NumPy has it, copied from a GPU if need be."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.cpu())


def log_softmax(logits: npt.NDArray[Any]) -> Floats:
    """Log-probabilities (…, V), in float64."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return rows
