"""A decoder whose rows come and go while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from textgen.contracts.guards import FAILURES, WatchedDecoder, begin_decoding, raise_failure
from textgen.plugin.component import Offer
from textgen.protocols import Ids, Model, RowDecoder, Tensors


class DecoderRows:
    """The decoder of a batch. Rows are taken out and put together by the decoder itself where it offers that
    (textgen.protocols.RowDecoder), and by way of its state where every row's state has one shape.
    """

    def __init__(self, model: Model, offer: Offer, decoder: WatchedDecoder) -> None:
        self._model, self._offer, self.decoder = model, offer, decoder
        self.extend = decoder.extend

    @classmethod
    def begin(cls, model: Model, offer: Offer, size: int) -> DecoderRows:
        """`size` rows at the start state."""
        return cls(model, offer, begin_decoding(model, size, offer))

    def take(self, rows: Sequence[int]) -> DecoderRows:
        """Another decoder with these rows, in this order; a row may be taken twice."""
        if (inner := row_decoder(self.decoder)) is not None:
            return self._of(inner.take(rows))
        state = self.decoder.read_state()
        taken = DecoderRows.begin(self._model, self._offer, len(rows))
        taken.write({name: array[rows] for name, array in state.items()})
        return taken

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        if (inner := row_decoder(self.decoder)) is not None:
            self.decoder = self._of(inner.take(rows)).decoder
            self.extend = self.decoder.extend
        else:
            self.write({name: array[rows] for name, array in self.decoder.read_state().items()})

    def join(self, other: DecoderRows) -> None:
        """Append the rows of another decoder of the same model, which is not used any more."""
        if (inner := row_decoder(self.decoder)) is not None:
            inner.join(cast("RowDecoder", other.decoder.inner))
        else:
            ours, theirs = self.decoder.read_state(), other.decoder.read_state()
            self.write({name: np.concatenate([ours[name], theirs[name]]) for name in theirs})

    def row_state(self, row: int) -> Tensors:
        """The state of one row, as a decoder of one has it."""
        if (inner := row_decoder(self.decoder)) is not None:
            return self._of(inner.take([row])).decoder.read_state()
        return {name: array[row : row + 1] for name, array in self.decoder.read_state().items()}

    def write(self, state: Tensors) -> None:
        """Replace the state of all rows."""
        self.decoder.write_state(state)

    def advanced(self, state: Tensors, ids: Ids) -> Tensors:
        """The state of one row that is at `state` and is fed `ids` (T,)."""
        other = DecoderRows.begin(self._model, self._offer, 1)
        other.write(state)
        if len(ids):
            other.extend(ids[None])
        return other.decoder.read_state()

    def _of(self, inner: Any) -> DecoderRows:
        return DecoderRows(self._model, self._offer, WatchedDecoder(inner, self._offer, inner.extend))


def row_decoder(decoder: WatchedDecoder) -> RowDecoder | None:
    """A model's own decoder where it is a RowDecoder."""
    offers = all(callable(getattr(decoder.inner, name, None)) for name in ("take", "join"))
    return cast("RowDecoder", decoder.inner) if offers else None


def can_share(model: Model, offer: Offer) -> tuple[bool, bool]:
    """Whether rows of this model can share a batch, and whether they are then the same bit for bit as alone."""
    if (inner := row_decoder(begin_decoding(model, 1, offer))) is not None:
        return True, bool(getattr(inner, "exact_rows", True))
    return keeps_shape(model, offer), True


def keeps_shape(model: Model, offer: Offer) -> bool:
    """Whether the state of a row has the same shapes however long it is."""
    decoder = begin_decoding(model, 1, offer)
    before = _shapes(decoder.read_state())
    try:
        decoder.extend(np.zeros((1, 1), np.int64))
    except FAILURES as error:
        raise_failure(offer, "decoding", error)
    return before == _shapes(decoder.read_state())


def _shapes(state: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in state.items()}
