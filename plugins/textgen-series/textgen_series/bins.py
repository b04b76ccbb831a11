"""Numbers to bins and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
import numpy as np

from textgen import CorpusError
from textgen.protocols import Floats, Ids, Table
from textgen_series import BinsConfig
from textgen_series.numbers import read_blocks, to_text

Values = Floats

_SAMPLE: Final = (
    1 << 20
)  # numbers that quantiles are taken from; of a longer series, a random sample


@attrs.define(eq=False)
class BinsTokenizer:
    """textgen.protocols.Tokenizer with one id per bin, in the order of the numbers.

    edges    (V - 1,) inner edges, increasing; a number equal to an edge is in the bin above it
    centres  (V,) what each bin is decoded to; each lies in its own bin
    """

    config: BinsConfig
    edges: Values | None = None
    centres: Values = attrs.field(factory=lambda: np.empty(0))

    @property
    def vocab_size(self) -> int:
        """The number of bins."""
        self._fitted()
        return len(self.centres)

    @property
    def unknown_id(self) -> None:
        """None: every finite number has its bin."""
        return None

    def fit(self, pieces: Iterable[str]) -> None:
        """Lay out the bins.

        Raises CorpusError for a line that is not a finite number, and when there is no number.
        """
        sample, low, high = _survey(read_blocks(pieces))
        if self.config.spacing == "quantile":
            self.edges, self.centres = _quantile_bins(np.sort(sample), self.config.bins)
            return
        low = low if self.config.low is None else self.config.low
        high = high if self.config.high is None else self.config.high
        self.edges, self.centres = _uniform_bins(low, max(low, high), self.config.bins)

    def ids_of(self, values: Values) -> Ids:
        """The bins, int32, of finite numbers of any shape."""
        return np.searchsorted(self._fitted(), values, side="right").astype(np.int32)

    def encode(self, text: str) -> Ids:
        """(T,) int32, one id per line.

        Raises CorpusError for a line that is not a finite number.
        """
        return np.concatenate(list(self.encode_pieces([text])))

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """(T,) int32 for the lines that each piece completes, and at the end for the last line."""
        self._fitted()
        return (self.ids_of(values) for values in read_blocks(pieces))

    def decode(self, ids: Ids) -> str:
        """The bins' centres, one a line. Raises ValueError for ids outside the vocabulary."""
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"ids must be from 0 to {self.vocab_size - 1}")
        return to_text(self.centres[ids.astype(np.int64)].tolist())

    def incremental_decoder(self) -> _Stateless:
        """One line per id, so nothing is ever held back."""
        return _Stateless(self)

    def to_dict(self) -> dict[str, Any]:
        """Edges and centres."""
        return {"type": "bins", "edges": self._fitted().tolist(), "centres": self.centres.tolist()}

    def from_dict(self, state: Table) -> BinsTokenizer:
        """A tokenizer with the bins of `to_dict`."""
        return BinsTokenizer(
            self.config, np.array(state["edges"], float), np.array(state["centres"], float)
        )

    def _fitted(self) -> Values:
        if self.edges is None:
            raise ValueError("the tokenizer is not fitted yet")
        return self.edges


@attrs.frozen
class _Stateless:
    tokenizer: BinsTokenizer

    def decode(self, ids: Ids, final: bool = False) -> str:
        """The lines of `ids`."""
        return self.tokenizer.decode(ids)


def _survey(blocks: Iterable[Values]) -> tuple[Values, float, float]:
    """All numbers, or a uniform random sample of so many that memory stays bounded; the smallest;
    the largest.

    Vitter, "Random sampling with a reservoir", 1985, algorithm R: number i takes the place of a
    random earlier one with probability _SAMPLE / i. The generator's seed is fixed, so the same text
    gives the same bins.
    """
    generator = np.random.default_rng(0)
    reservoir, filled, seen, low, high = np.empty(0), 0, 0, np.inf, -np.inf
    for block in blocks:
        if not len(block):
            continue
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        fits = min(len(block), _SAMPLE - filled)
        if filled + fits > len(reservoir):
            reservoir = np.concatenate([reservoir, np.empty(max(filled, fits))])
        reservoir[filled : filled + fits] = block[:fits]
        filled += fits
        rest = block[fits:]
        slots = (
            generator.random(len(rest)) * np.arange(seen + fits + 1, seen + len(block) + 1)
        ).astype(np.int64)
        reservoir[slots[slots < _SAMPLE]] = rest[slots < _SAMPLE]
        seen += len(block)
    if not seen:
        raise CorpusError("the corpus has no number; the tokenizer bins takes one number a line")
    return reservoir[:filled], low, high


def _uniform_bins(low: float, high: float, bins: int) -> tuple[Values, Values]:
    """Inner edges and midpoints of bins of one width; fewer bins where floats lie no closer."""
    share = np.arange(bins + 1) / bins
    outer = np.unique(low * (1 - share) + high * share)  # in this form the range cannot overflow
    inner = outer[1:-1]
    centres = outer[:-1] / 2 + outer[1:] / 2 if len(outer) > 1 else outer
    # Between neighbouring floats there is no middle: the lower edge then stands for its bin.
    own = np.searchsorted(inner, centres, side="right") == np.arange(len(centres))
    return inner, np.where(own, centres, outer[: len(centres)])


def _quantile_bins(values: Values, bins: int) -> tuple[Values, Values]:
    """Inner edges and medians of bins that hold equally many of the sorted `values`; equal edges
    are merged.
    """
    count = len(values)
    edges = np.unique(values[np.arange(1, bins) * count // bins])
    edges = edges[edges > values[0]]  # nothing lies below the smallest
    starts = np.concatenate([[0], np.searchsorted(values, edges), [count]])
    return edges, values[(starts[:-1] + starts[1:] - 1) // 2]
