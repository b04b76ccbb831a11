"""Modified Kneser-Ney smoothing of one order: discounts, and the weights of interpolation.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1999,
equations 17 and 26.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

FALLBACK: Final = (0.5, 1.0, 1.5)
"""The discounts of an order whose counts allow no estimate; those of KenLM's
`--discount_fallback`.
"""


def discounts(counts: Ints) -> Floats:
    """(3,) what is taken off counts of 1, of 2, and of 3 or more, given all `counts` of an order.

    D_k = k - (k + 1) Y n_(k+1) / n_k with n_k n-grams that were counted k times and Y = n_1 / (n_1
    + 2 n_2). All are above 0, so that no token is ever impossible: where an n_k is zero or a D_k is
    not positive, as in small texts, FALLBACK is returned.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    if not n.all():
        return np.array(FALLBACK)
    k = np.arange(1, 4)
    estimate: Floats = k - (k + 1) * (n[0] / (n[0] + 2 * n[1])) * n[1:] / n[:-1]
    return estimate if (estimate > 0).all() else np.array(FALLBACK)


def interpolation(counts: Ints, contexts: Ints, size: int) -> tuple[Floats, Floats]:
    """The weights of one order: P(w | c) = own[c w] + lower[c] · P(w | c without its first token).

    counts     (E,) of the n-grams of the order, all above 0
    contexts   (E,) the number, below `size`, of the context that each belongs to

    Returns own (E,), the discounted relative frequencies, and lower (size,), the mass that the
    discounts set free; it is 1 for a context that nothing follows.
    """
    discounted = discounts(counts)[np.minimum(counts, 3) - 1]
    # As float64: without any n-grams, bincount takes no notice of their weights, and gives
    # integers.
    whole, freed = (
        np.bincount(contexts, each, size).astype(np.float64) for each in (counts, discounted)
    )
    lower = np.divide(freed, whole, out=np.ones(size), where=whole > 0)
    return (counts - discounted) / whole[contexts], lower
