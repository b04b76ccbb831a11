"""Leaving out the n-grams that change a model least.

After Stolcke, "Entropy-based pruning of backoff language models" (1998). Without the n-gram h w, its share of what
follows h goes to the order below: P(w | h) falls to P'(w | h), and all other tokens gain a little. By the log-sum
inequality the divergence between the two distributions is at least that of w against all others,
P ln(P / P') + (1 - P) ln((1 - P) / (1 - P')), which is nearly all of it. It is weighed by how often h occurs in the
text: the lower orders of Kneser-Ney smoothing do not tell that (Chelba, Brants, Neveitt and Xu, "Study on interaction
between entropy pruning and Kneser-Ney smoothing", 2010).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from textgen_builtins.models.ngram.smoothing import Ints
from textgen_builtins.models.ngram.trie import Trie


def prune_by_entropy(
    trie: Trie, occurrences: Ints, tokens: int, threshold: float
) -> Generator[None, None, npt.NDArray[np.bool_]]:
    """Whether each n-gram (E,) stays: it changes the text's cross-entropy by more than `threshold`, in nats per token.

    What longer n-grams that stay begin or end with stays too, and so do all of order 1.

    occurrences   (E,) how often each n-gram occurs in the text of so many `tokens`
    """
    borders = np.concatenate([[0], np.cumsum(trie.sizes)])
    changes, suffixes = np.empty(len(trie.keys), np.float32), np.empty(len(trie.keys), np.int32)
    probabilities = np.empty(len(trie.keys), np.float32)
    for n in range(trie.order):
        edges = slice(borders[n], borders[n + 1])
        own, lower, parents, suffixes[edges] = trie.weights(edges)
        below = (
            probabilities[suffixes[edges]].astype(np.float64)
            if n
            else np.full(len(own), 1 / trie.vocab_size)
        )
        probabilities[edges] = own + lower * below
        shares = (occurrences[parents - 1] if n else np.full(len(own), tokens)) / tokens
        changes[edges] = shares * _divergence(own + lower * below, (own + lower) * below)
        yield None
    stays = changes > threshold
    stays[: borders[1]] = True
    for n in range(trie.order - 1, 0, -1):
        edges = slice(borders[n], borders[n + 1])
        left = stays[edges]
        stays[trie.keys[edges][left] // trie.vocab_size - 1] = True
        stays[suffixes[edges][left]] = True
        yield None
    return stays


def _divergence(p: Any, q: Any) -> Any:
    """Of one outcome of probability p against q, and all others."""
    p, q = np.clip(p, 1e-12, 1 - 1e-12), np.clip(q, 1e-12, 1 - 1e-12)
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
