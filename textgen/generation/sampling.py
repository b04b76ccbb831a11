"""The draw of a token: what samplers see of a text, its random numbers, and the choice by inverse CDF."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.protocols import Array, Ids

_PER_COUNT: Final = 4  # numbers that one count of Philox's counter gives


@attrs.define(eq=False)
class SequenceHistory:
    """textgen.protocols.History, kept as far as `level` says. B rows that a batch may exchange."""

    vocab_size: int
    level: str
    counts: npt.NDArray[np.int32] = attrs.field(init=False)
    prompt_counts: npt.NDArray[np.int32] = attrs.field(init=False)
    _tokens: list[list[int]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = np.zeros((0, self.vocab_size), np.int32)
        self.prompt_counts = np.zeros((0, self.vocab_size), np.int32)
        self._tokens = []

    def tokens(self, row: int) -> Ids:
        """(N,) ids of a row."""
        if self.level != "tokens":
            raise LookupError("no sampler has announced that it reads tokens: set its attribute history to 'tokens'")
        return np.array(self._tokens[row], np.int64)

    def append_rows(self, prompts: Sequence[Ids]) -> None:
        """Begin sequences below the others."""
        if self.level != "none":
            counted = np.stack([np.bincount(ids, minlength=self.vocab_size).astype(np.int32) for ids in prompts])
            self.prompt_counts = np.concatenate([self.prompt_counts, counted])
            self.counts = np.concatenate([self.counts, np.zeros_like(counted)])
        if self.level == "tokens":
            self._tokens += [ids.tolist() for ids in prompts]

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        if self.level != "none":
            self.counts, self.prompt_counts = self.counts[rows], self.prompt_counts[rows]
        if self.level == "tokens":
            self._tokens = [self._tokens[row] for row in rows]

    def join(self, other: SequenceHistory) -> None:
        """Append the rows of another history of the same chain."""
        self.counts = np.concatenate([self.counts, other.counts])
        self.prompt_counts = np.concatenate([self.prompt_counts, other.prompt_counts])
        self._tokens += other._tokens

    def row(self, row: int) -> SequenceHistory:
        """A history of one row alone, sharing what it has."""
        alone = SequenceHistory(self.vocab_size, self.level)
        alone.counts, alone.prompt_counts = self.counts[row : row + 1], self.prompt_counts[row : row + 1]
        alone._tokens = self._tokens[row : row + 1]
        return alone

    def add(self, tokens: Ids) -> None:
        """Note one generated token (B,) for each row."""
        if self.level != "none":
            self.counts[np.arange(len(tokens)), tokens] += 1
        if self.level == "tokens":
            for row, token in enumerate(tokens.tolist()):
                self._tokens[row].append(token)

    def extend_prompt(self, row: int, prompt: Ids) -> None:
        """Note tokens that the caller adds to a sequence."""
        if self.level != "none":
            np.add.at(self.prompt_counts[row], prompt, 1)
        if self.level == "tokens":
            self._tokens[row] += prompt.tolist()

    def dump_row(self, row: int) -> dict[str, Any]:
        """A row as arrays, for a saved state."""
        kept: dict[str, Any] = {}
        if self.level != "none":
            kept |= {"counts": self.counts[row], "prompt_counts": self.prompt_counts[row]}
        if self.level == "tokens":
            kept["tokens"] = self.tokens(row)
        return kept

    def load_row(self, row: int, kept: dict[str, Any]) -> None:
        """Give a row what `dump_row` gave. Raises KeyError when the samplers need more than was kept."""
        if self.level != "none":
            self.counts[row], self.prompt_counts[row] = kept["counts"], kept["prompt_counts"]
        if self.level == "tokens":
            self._tokens[row] = kept["tokens"].tolist()


class UniformNumbers:
    """Numbers of [0, 1), each of which depends on seed, index and its place alone. Not shared between threads.

    Philox is keyed by seed and index, and its counter jumps to any place, four numbers a count (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", 2011). One generator is set to each row in turn: making one for each
    takes several times as long.
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._random = np.random.Generator(self._bits).random
        self._fresh: Any = self._bits.state

    def take(self, seed: int, index: int, start: int, count: int) -> npt.NDArray[np.float64]:
        """(count,) numbers from place `start` on."""
        aligned, skip = divmod(start, _PER_COUNT)
        place = self._fresh["state"]
        place["key"][0], place["key"][1], place["counter"][0] = seed, index, aligned
        self._bits.state = self._fresh
        numbers: npt.NDArray[np.float64] = self._random(skip + count)[skip:]
        return numbers


def draw_one(row: npt.NDArray[Any], uniform: float) -> int:
    """`inverse_cdf` for one row of logits (V,): the same steps with less around them."""
    peak = row.max()
    if not isfinite(peak):
        return -1
    cdf = np.add.accumulate(np.exp(row - peak), dtype=np.float64)
    return int(cdf.searchsorted(uniform * (cdf.item(-1) * (1 - 2**-52)), side="right"))


def inverse_cdf(logits: npt.NDArray[Any], uniforms: npt.NDArray[np.float64]) -> Ids:
    """Draw a token for each row of logits (B, V); -1 where there is none to draw.

    Token i is drawn when the cumulative weight of 0 to i is the first above the uniform number times the total, so a
    token of weight zero never is. The factor keeps the product below the total when the number is next to 1.
    """
    peak = logits.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        cdf = np.exp(logits - peak).cumsum(axis=-1, dtype=np.float64)
    total = cdf[:, -1]
    threshold = uniforms * (total * (1 - 2**-52))
    drawn: Ids = (cdf <= threshold[:, None]).sum(axis=-1)
    if not np.isfinite(total.sum()):
        drawn = np.where(np.isfinite(total), drawn, -1)
    return drawn


def to_numpy(values: Array) -> npt.NDArray[Any]:
    """An array as NumPy has it, copied from a GPU if need be."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.cpu())


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Log-probabilities (…, V), in float64."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return rows
