"""What samplers see of the texts that they work on."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final

import attrs
import numpy as np

from textgen.generation.sampling.draw import step_numbers
from textgen.protocols import Floats, Ids, Tensors

_NUMBERS_AT_ONCE: Final = 2048  # random numbers of next steps: each step by itself takes longer
_DRAW: Final = 2**32  # in place of a sampler's position: no chain is as long


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
        return step_numbers(self.streams, self.lengths, self._link.position, count)

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
