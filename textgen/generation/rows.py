"""A decoder whose rows come and go while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from textgen.contracts.checks import begin_decoding
from textgen.plugin.component import Offer
from textgen.protocols import Model, Tensors


@attrs.define(eq=False)
class DecoderRows:
    """The decoder of a batch. Rows are taken out and put together by the decoder itself where it offers that
    (textgen.protocols.RowDecoder), and by way of its state where every row's state has one shape.
    """

    inner: Any
    offer: Offer
    model: Model

    @classmethod
    def begin(cls, model: Model, offer: Offer, size: int) -> DecoderRows:
        """`size` rows at the start state."""
        return cls(begin_decoding(model, size, offer), offer, model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def take(self, rows: Sequence[int]) -> DecoderRows:
        """Another decoder with these rows, in this order; a row may be taken twice."""
        if offers_rows(self.inner):
            return DecoderRows(self.inner.take(rows), self.offer, self.model)
        state = self.read_state()
        other = DecoderRows.begin(self.model, self.offer, len(rows))
        other.write_state({name: array[rows] for name, array in state.items()})
        return other

    def join(self, other: DecoderRows) -> None:
        """Append the rows of another decoder of the same model, which is not used any more."""
        if offers_rows(self.inner):
            self.inner.join(other.inner)
        else:
            ours, theirs = self.read_state(), other.read_state()
            self.write_state({name: np.concatenate([ours[name], theirs[name]]) for name in theirs})


def offers_rows(decoder: Any) -> bool:
    """Whether it is a RowDecoder."""
    return callable(getattr(decoder, "take", None)) and callable(getattr(decoder, "join", None))


def can_share(model: Model, offer: Offer) -> bool:
    """Whether rows of this model can share a batch."""
    return offers_rows(begin_decoding(model, 1, offer)) or keeps_shape(model, offer)


def keeps_shape(model: Model, offer: Offer) -> bool:
    """Whether the state of a row has the same shapes however long it is."""
    decoder = begin_decoding(model, 1, offer)
    before = _shapes(decoder.read_state())
    decoder.extend(np.zeros((1, 1), np.int64))
    return before == _shapes(decoder.read_state())


def _shapes(state: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in state.items()}
