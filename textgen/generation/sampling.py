"""The draw of a token: what samplers see of a text, its random numbers, and the choice by inverse CDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, NoReturn

import attrs
import numpy as np
import numpy.typing as npt

from textgen.data import splitmix
from textgen.errors import UsageError
from textgen.protocols import Array, Ids, Tensors

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
LEVEL_OF: Final = {
    "prompt_counts": "counts",
    "counts": "counts",
    "tokens": "tokens",
}
"""What a sampler that reads an attribute has to announce."""
_UNANNOUNCED: Final = {
    "state": "has no state: give it the methods start and accept",
    "random": "has not announced that it reads random numbers: set its attribute random to True",
}
_AT_ONCE: Final = 2048  # random numbers of next steps: each step by itself takes longer
_DRAW: Final = 2**32  # in place of a sampler's place: no chain is as long


@attrs.define(eq=False, repr=False)  # a repr would read what is not kept
class SequenceHistory:
    """textgen.protocols.History, kept as far as `level` says. B rows that a batch may exchange.

    streams  (B, 2) seed and index of each row
    states   the states of samplers, by the keys of their links
    """

    vocab_size: int
    level: str
    streams: npt.NDArray[np.uint64] = attrs.field(init=False)
    prompt_lengths: npt.NDArray[np.int64] = attrs.field(init=False)
    lengths: npt.NDArray[np.int64] = attrs.field(init=False)
    counts: npt.NDArray[np.int32] = attrs.field(init=False)
    prompt_counts: npt.NDArray[np.int32] = attrs.field(init=False)
    states: dict[str, Tensors] = attrs.field(init=False, factory=dict)
    _tokens: list[list[int]] = attrs.field(init=False, factory=list)
    _ahead: npt.NDArray[np.float64] | None = attrs.field(init=False, default=None)
    _ahead_from: int = attrs.field(init=False, default=0)

    def __getattr__(self, name: str) -> NoReturn:
        """Called for what is not kept; links.LinkHistory has more for the samplers that have announced it."""
        if name in _UNANNOUNCED:
            raise LookupError(f"this sampler {_UNANNOUNCED[name]}")
        if name not in LEVEL_OF:
            raise AttributeError(f"a history has no {name!r}", name=name, obj=self)
        raise LookupError(
            f"no sampler has announced that it reads {name}: set its attribute history to {LEVEL_OF[name]!r}"
        )

    @classmethod
    def begin(
        cls, vocab_size: int, level: str, prompts: Sequence[Ids], streams: Sequence[tuple[int, int]]
    ) -> SequenceHistory:
        """Rows that have drawn nothing yet, with the seed and index of each."""
        rows = cls(vocab_size, level)
        rows.streams = np.array(streams, np.uint64)
        rows.prompt_lengths = np.array([len(ids) for ids in prompts], np.int64)
        rows.lengths = np.zeros_like(rows.prompt_lengths)
        if level in ("counts", "tokens"):
            counted = [np.bincount(ids, minlength=vocab_size) for ids in prompts]
            rows.prompt_counts = np.stack(counted).astype(np.int32)
            rows.counts = np.zeros_like(rows.prompt_counts)
        if level == "tokens":
            rows._tokens = [ids.tolist() for ids in prompts]
        return rows

    def numbers(self) -> npt.NDArray[np.float64]:
        """(B, n) random numbers of [0, 1) for the draws of the next token and of some after it."""
        column = int(self.lengths[0]) - self._ahead_from
        if self._ahead is None or not 0 <= column < self._ahead.shape[1]:
            count = max(1, min(64, _AT_ONCE // len(self.lengths)))
            steps = self.lengths[:, None] + np.arange(count)
            self._ahead = step_numbers(self.streams, steps, _DRAW, 1)[..., 0]
            self._ahead_from, column = int(self.lengths[0]), 0
        return self._ahead[:, column:]

    def tokens(self, row: int) -> Ids:
        """(N,) ids of a row."""
        if self.level != "tokens":
            raise LookupError(
                "no sampler has announced that it reads tokens: set its attribute history to 'tokens'"
            )
        return np.array(self._tokens[row], np.int64)

    def rows(self, rows: slice | Sequence[int]) -> SequenceHistory:
        """A history of some rows, which shares them with this one where they are given as a slice."""
        some = SequenceHistory(self.vocab_size, self.level)
        for name in self._arrays():
            setattr(some, name, getattr(self, name)[rows])
        if self.level == "tokens":
            some._tokens = (
                self._tokens[rows]
                if isinstance(rows, slice)
                else [self._tokens[row] for row in rows]
            )
        some.states = {
            key: {name: a[rows] for name, a in state.items()} for key, state in self.states.items()
        }
        return some

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        kept, self._ahead = self.rows(rows), None
        for name in (*self._arrays(), "_tokens", "states"):
            setattr(self, name, getattr(kept, name))
        if len({*rows}) < len(rows):  # forks grow apart
            self._tokens = [tokens.copy() for tokens in self._tokens]

    def join(self, other: SequenceHistory) -> None:
        """Append the rows of another history of the same chain."""
        self._ahead = None
        for name in self._arrays():
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        self._tokens += other._tokens
        for key, state in self.states.items():
            theirs = other.states[key]
            self.states[key] = {
                name: np.concatenate([array, theirs[name]]) for name, array in state.items()
            }

    def add(self, tokens: Ids, rows: slice | Ids = slice(None)) -> None:
        """Note one generated token (B,) for each row, or for some of them."""
        self.lengths[rows] += 1
        if self.level in ("counts", "tokens"):
            self.counts[np.arange(len(self.lengths))[rows], tokens] += 1
        if self.level == "tokens":
            for row, token in zip(
                np.arange(len(self.lengths))[rows].tolist(), tokens.tolist(), strict=True
            ):
                self._tokens[row].append(token)

    def extend_prompt(self, row: int, prompt: Ids) -> None:
        """Note tokens that the caller adds to a sequence."""
        self.prompt_lengths[row] += len(prompt)
        if self.level in ("counts", "tokens"):
            np.add.at(self.prompt_counts[row], prompt, 1)
        if self.level == "tokens":
            self._tokens[row] += prompt.tolist()

    def dump_row(self, row: int) -> dict[str, Any]:
        """A row as arrays for a saved state, each but the tokens with a batch of one as its first axis."""
        kept = {name: getattr(self, name)[[row]] for name in saved_arrays(self.level)}
        if self.level == "tokens":
            kept["tokens"] = self.tokens(row)
        for key, state in self.states.items():
            kept |= {f"{key}.{name}": array[[row]] for name, array in state.items()}
        return kept

    def load_row(self, row: int, kept: Mapping[str, Any], lengths: tuple[int, int]) -> None:
        """Give a row what `dump_row` gave, and the lengths of prompt and text.

        A sampler that was not there then keeps the state it has, and sees the tokens from here on if none were kept.
        Raises UsageError for a state of another shape.
        """
        self.prompt_lengths[row], self.lengths[row] = lengths
        for name in saved_arrays(self.level):
            getattr(self, name)[row] = kept[name][0] if name in kept else 0
        if self.level == "tokens":
            self._tokens[row] = kept["tokens"].tolist() if "tokens" in kept else []
        for key, state in self.states.items():
            if not any(name.startswith(f"{key}.") for name in kept):
                continue
            for name, array in state.items():
                saved = kept.get(f"{key}.{name}")
                if saved is None or saved.shape != (1, *array.shape[1:]):
                    was = (
                        "is not in it" if saved is None else f"was saved of shape {saved.shape[1:]}"
                    )
                    raise UsageError(
                        f"the saved state of sampler {key!r} is not one that it can resume from: {name!r} {was}, and "
                        f"has shape {array.shape[1:]} for each text now; resume it with the options that it had",
                        argument="state",
                    )
                array[row] = saved[0]

    def _arrays(self) -> tuple[str, ...]:
        """The arrays that are kept, each with a row per sequence."""
        return ("streams", "prompt_lengths", "lengths", *saved_arrays(self.level))


def saved_arrays(level: str) -> tuple[str, ...]:
    """The names of the arrays that a history of this level saves; a row's lengths are saved in any case."""
    return ("counts", "prompt_counts") if level in ("counts", "tokens") else ()


def step_numbers(
    streams: npt.NDArray[np.uint64], steps: npt.NDArray[np.int64], place: int, count: int
) -> npt.NDArray[np.float64]:
    """(B, ..., count) numbers of [0, 1) for the sampler at a place of the chain, at steps (B, ...) of B streams.

    The words are hashed one after the other with the mix of SplitMix64 (Steele, Lea and Flood, "Fast splittable
    pseudorandom number generators", 2014), whose stream from there on gives the numbers.
    """
    rows = splitmix((splitmix(streams[:, 0] + _GAMMA) ^ streams[:, 1]) + _GAMMA)
    state = rows.reshape(-1, *[1] * (steps.ndim - 1)) ^ steps.astype(np.uint64)
    state = splitmix(state + _GAMMA)
    state = splitmix((state ^ np.uint64(place)) + _GAMMA)
    numbers = splitmix(state[..., None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53


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
