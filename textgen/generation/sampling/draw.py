"""From logits to a token: random numbers, and the choice by inverse CDF."""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textgen.data import splitmix
from textgen.protocols import Array, Floats, Ids

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
# Tokens of a vocabulary, from which on blocks of them are summed first.
_LARGE_VOCABULARY: Final = 4096
_BLOCK: Final = 256


def step_numbers(
    streams: npt.NDArray[np.uint64], steps: npt.NDArray[np.int64], position: int, count: int
) -> Floats:
    """(B, ..., count) numbers of [0, 1) for the sampler at a position in the chain, at steps
    (B, ...) of B streams.

    The words are hashed one after the other with the mix of SplitMix64 (Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", 2014), whose stream from there on gives the
    numbers.
    """
    rows = splitmix((splitmix(streams[:, 0] + _GAMMA) ^ streams[:, 1]) + _GAMMA)
    state = rows.reshape(-1, *[1] * (steps.ndim - 1)) ^ steps.astype(np.uint64)
    state = splitmix(state + _GAMMA)
    state = splitmix((state ^ np.uint64(position)) + _GAMMA)
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
