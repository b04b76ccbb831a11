"""The functions of the samplers on logits (B, V), in the array API: the same for NumPy and for
torch on a GPU.

Every truncation keeps at least one token. Of tokens that tie at its border, those with lower ids
are kept.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import numpy as np
from array_api_compat import device

from textgen.protocols import Array

_FORBIDDEN_LOGIT = -math.inf
_COLD = 1e-6
_MIN_TEMPERATURE = 1e-30
_MAX_TEMPERATURE = 1e30  # flat already, and float32 can represent it


def array_namespace(array: Array) -> Any:
    """The array API of an array's library.

    NumPy follows it itself; asking array_api_compat would slow a step down.
    """
    return np if type(array) is np.ndarray else array_api_compat.array_namespace(array)


def greedy(logits: Array) -> Array:
    """Keep the most likely token."""
    xp = array_namespace(logits)
    best = xp.argmax(logits, axis=-1, keepdims=True)
    return keep(logits, xp.arange(logits.shape[-1], device=device(logits))[None, :] == best)


def temperature(logits: Array, value: float) -> Array:
    """Divide by the temperature, above 0."""
    if value >= _COLD:
        return logits / min(value, _MAX_TEMPERATURE)
    # The quotients could leave float32's range: divide the distance from the best, limited to
    # float32's range.
    xp = array_namespace(logits)
    return (logits - xp.max(logits, axis=-1, keepdims=True)) / max(value, _MIN_TEMPERATURE)


def top_k(logits: Array, k: int) -> Array:
    """Keep the k most likely tokens."""
    xp = array_namespace(logits)
    size = logits.shape[-1]
    if k >= size:
        return logits
    border = xp.sort(logits, axis=-1)[:, size - k : size - k + 1]
    return _keep_most(xp, logits, border, k, k * logits.shape[0])


def top_p(logits: Array, p: float) -> Array:
    """Keep the most likely tokens that together reach probability p (Holtzman et al., 2020)."""
    xp = array_namespace(logits)
    ordered, weights = (
        xp.flip(xp.sort(values, axis=-1), axis=-1) for values in (logits, probabilities(logits))
    )
    before = xp.cumulative_sum(weights, axis=-1) - weights
    count = _count(xp, before < p)
    count = xp.maximum(count, xp.ones_like(count))
    border = xp.take_along_axis(ordered, count - 1, axis=-1)
    return _keep_most(xp, logits, border, count, int(xp.sum(count)))


def min_p(logits: Array, p: float) -> Array:
    """Keep the tokens at least p times as likely as the most likely one (Nguyen et al., 2024)."""
    xp = array_namespace(logits)
    return keep(logits, logits >= xp.max(logits, axis=-1, keepdims=True) + math.log(p))


def repetition(logits: Array, seen: Array, penalty: float) -> Array:
    """Divide positive logits of `seen` (B, V) tokens by the penalty, multiply negative ones (Keskar
    et al., 2019).
    """
    xp = array_namespace(logits)
    made, seen = xp.asarray(logits, copy=True), like(seen, logits)
    given = made[seen]
    made[seen] = xp.where(given > 0, given / penalty, given * penalty)
    return made


def presence(logits: Array, seen: Array, penalty: float) -> Array:
    """Subtract the penalty from the logits of `seen` (B, V) tokens."""
    xp = array_namespace(logits)
    return xp.where(like(seen, logits), logits - penalty, logits)


def frequency(logits: Array, counts: Array, penalty: float) -> Array:
    """Subtract the penalty times the token's count (B, V)."""
    xp = array_namespace(logits)
    return logits - penalty * xp.astype(like(counts, logits), logits.dtype)


def keep(logits: Array, kept: Array) -> Array:
    """Forbid the tokens that are false in the mask (B, V)."""
    return array_namespace(logits).where(kept, logits, _FORBIDDEN_LOGIT)


def probabilities(logits: Array) -> Array:
    """Softmax, (B, V); zeros where every token is forbidden."""
    xp = array_namespace(logits)
    peak = xp.max(logits, axis=-1, keepdims=True)
    weights = xp.exp(logits - xp.where(peak == _FORBIDDEN_LOGIT, 0.0, peak))
    total = xp.sum(weights, axis=-1, keepdims=True)  # at least 1: the most likely token's weight
    return weights / xp.where(total == 0, 1.0, total)


def xtc(logits: Array, threshold: float, rows: Any) -> Array:
    """Forbid, in the rows that are true in the NumPy mask (B,), the tokens of probability
    `threshold` or more but one.

    The one that stays is the least likely of them; of equals, the one with the lowest id.
    """
    xp = array_namespace(logits)
    weights = probabilities(logits)
    likely = (weights >= threshold) & (weights > 0)
    last = xp.argmin(
        xp.where(likely, weights, xp.full_like(weights, math.inf)), axis=-1, keepdims=True
    )
    spared = xp.arange(logits.shape[-1], device=device(logits))[None, :] == last
    return keep(logits, ~likely | spared | ~like(rows, logits)[:, None])


def like(values: Any, logits: Array) -> Array:
    """NumPy values as an array of the same library and device as `logits`."""
    return array_namespace(logits).asarray(values, device=device(logits))


def _keep_most(xp: Any, logits: Array, border: Array, count: Any, total: int) -> Array:
    """Keep the `count` most likely tokens, an integer or (B, 1), of which the last have the logit
    `border` (B, 1); `total` in all rows.
    """
    kept = logits >= border
    if int(xp.count_nonzero(kept)) == total:  # no row has ties at its border
        return keep(logits, kept)
    above, ties = logits > border, logits == border
    room = count - _count(xp, above)
    return keep(logits, above | (ties & (xp.cumulative_sum(ties, axis=-1, dtype=xp.int64) <= room)))


def _count(xp: Any, mask: Array) -> Array:
    """(B, 1) the number of true values."""
    return xp.sum(mask, axis=-1, keepdims=True, dtype=xp.int64)
