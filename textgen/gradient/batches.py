"""The batches of an epoch, each determined by its number alone, and those of held-out text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from textgen.data import Windows, shuffled
from textgen.errors import CorpusError
from textgen.gradient.options import GradientOptions

Batch: TypeAlias = tuple[npt.NDArray[Any], ...]
"""Arrays with the rows of a batch as first axis, the first of them token ids (B, T + 1)."""


@attrs.frozen
class Batches:
    """`batch(epoch, number)` gives the same batch whenever it is asked; epochs and numbers count
    from 0.
    """

    per_epoch: int
    batch: Callable[[int, int], Batch]


def training_batches(options: GradientOptions, windows: Windows, seed: int) -> Batches:
    """Windows (B, T + 1) int64, shuffled by `seed` and epoch, or along streams: batch k of an epoch
    contains the k-th window of each of B equal parts of the text.

    The text is a circle, cut at another position in every epoch, so that windows and parts begin
    elsewhere each time.
    """
    tokens, length, size = windows.tokens, windows.length, options.rows
    stretch = (len(tokens) - 1) // size
    is_shuffled = options.order == "shuffled"
    if not is_shuffled and stretch < length:
        raise CorpusError(
            f"the corpus is too short for {size} streams: {len(tokens):,} training tokens leave "
            f"{stretch} to each, and data.window_length is {length}; lower the trainer's "
            "batch_size or accumulate, or data.window_length"
        )
    span, starts = np.arange(length + 1), np.arange(size) * stretch

    def batch(epoch: int, number: int) -> Batch:
        if is_shuffled:
            some = shuffled(len(windows), number * size, (number + 1) * size, seed, epoch)
            positions = some * windows.stride
        else:
            positions = starts + number * length
        cut = int(np.random.default_rng([seed, epoch, 2]).integers(len(tokens))) if epoch else 0
        return (np.asarray(tokens[(cut + positions[:, None] + span) % len(tokens)], np.int64),)

    per_epoch = math.ceil(len(windows) / size) if is_shuffled else stretch // length
    return Batches(per_epoch, batch)


def validation_batches(options: GradientOptions, windows: Windows) -> Iterator[Batch]:
    """Windows (B, T + 1) int64 of held-out text in order, each to be read from the start state."""
    size = options.batch_size
    for start in range(0, len(windows), size):
        yield (windows.take(np.arange(start, min(start + size, len(windows)))),)
