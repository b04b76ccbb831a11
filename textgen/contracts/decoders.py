"""Decoders of a model, and the rows that they have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np

from textgen.contracts.checks import check_logits, unfit
from textgen.errors import ContractError
from textgen.plugin.component import RegisteredComponent
from textgen.protocols import Array, Ids, Model, Tensors


@attrs.frozen(eq=False)
class DecoderFactory:
    """Makes decoders of a model, and takes and joins their rows.

    source      the component to blame for what the model does
    vocab_size  V
    """

    model: Model
    source: RegisteredComponent
    vocab_size: int

    def __call__(self, count: int = 1) -> Any:
        """A decoder of rows at the start state, with every method: one is reported before the first
        text needs it.
        """
        made = self.model.decoder(count)
        if fault := unfit(made, "decoder"):
            raise ContractError(self.source, f"made a decoder that {fault}")
        return made

    def restored(self, state: Tensors) -> Any:
        """A decoder of one row with a state."""
        decoder = self()
        decoder.write_state(state)
        return decoder

    def extend(self, decoder: Any, ids: Ids) -> Array:
        """Feed ids (B, T). The checked logits (B, V) of what follows."""
        logits: Array = decoder.extend(ids)
        check_logits(logits, (len(ids), self.vocab_size), self.source)
        return logits

    def score(self, decoder: Any, ids: Ids) -> Array:
        """Feed ids (B, T), T > 0. The checked logits (B, T, V) after each of them."""
        logits: Array = decoder.score(ids)
        check_logits(logits, (*ids.shape, self.vocab_size), self.source)
        return logits

    def take(self, decoder: Any, rows: Sequence[int] | Ids) -> Any:
        """Another decoder with some rows of one, in this order; a row may be taken twice.

        The decoder takes them itself if it is a RowDecoder; otherwise they are taken from its
        state.
        """
        if offers_rows(decoder):
            return decoder.take([*map(int, rows)])
        state, other = decoder.read_state(), self(len(rows))
        other.write_state({name: array[rows] for name, array in state.items()})
        return other

    def state(self, decoder: Any, row: int) -> Tensors:
        """The state of a row."""
        state: Tensors = self.take(decoder, [row]).read_state()
        return state

    def join(self, decoder: Any, other: Any) -> None:
        """Append the rows of another decoder of the model, which is not used afterwards."""
        if offers_rows(decoder):
            decoder.join(other)
        else:
            ours, theirs = decoder.read_state(), other.read_state()
            decoder.write_state(
                {name: np.concatenate([ours[name], theirs[name]]) for name in theirs}
            )

    def can_share(self) -> bool:
        """Whether rows can share a decoder, one that was fed nothing among them: it takes and
        joins rows itself, or its state keeps the same arrays.
        """
        decoder, forms = self(), []
        if offers_rows(decoder):
            return True
        for count in (0, 1, 1):
            decoder.extend(np.zeros((1, count), np.int64))
            state = decoder.read_state().items()
            forms.append({name: (array.shape, array.dtype) for name, array in state})
        return all(form == forms[0] for form in forms)


def offers_rows(decoder: Any) -> bool:
    """Whether a decoder is a RowDecoder."""
    return callable(getattr(decoder, "take", None)) and callable(getattr(decoder, "join", None))


@attrs.define(eq=False)
class Feed:
    """Rows of a decoder that are fed together.

    rows     (n,) that they continue, and once they are fed, their new rows; none at the start
             state
    ids      (n, T) to be fed
    logits   (n, T, V) after each of the ids; at the start (n, 1, V) without ids; None where there
             is nothing to feed
    """

    factory: DecoderFactory
    rows: Ids
    ids: Ids
    logits: Array = None


@attrs.define(eq=False)
class Decoders:
    """Decoders of several models, each with its number of rows."""

    _all: dict[DecoderFactory, tuple[Any, int]]

    def whole(self, factory: DecoderFactory, count: int) -> Any | None:
        """The decoder of a model, if it has just so many rows."""
        decoder, size = self._all[factory]
        return decoder if size == count else None

    def state(self, factory: DecoderFactory, row: int) -> Tensors:
        """The state of a row."""
        return factory.state(self._all[factory][0], row)

    def feed(self, feeds: Iterable[Feed]) -> None:
        """Feed rows, those of one model and length together. Rows that are not among them go."""
        groups = defaultdict[tuple[DecoderFactory, bool, int], list[Feed]](list)
        for feed in feeds:
            groups[feed.factory, not len(feed.rows), feed.ids.shape[1]].append(feed)
        uses = Counter(factory for factory, is_new, _ in groups if not is_new)
        made = Decoders({})
        for (factory, is_new, length), mine in groups.items():
            ids, logits = _joined([feed.ids for feed in mine]), None
            if is_new:
                decoder = factory(len(ids))
            else:
                decoder = self._rows(factory, _joined([feed.rows for feed in mine]), uses[factory])
            if length > 1:
                logits = factory.score(decoder, ids)
            elif length or is_new:
                logits = factory.extend(decoder, ids)[:, None]
            first = made.join(Decoders({factory: (decoder, len(ids))}))[factory]
            begin = 0
            for feed in mine:
                end = begin + len(feed.ids)
                feed.rows = np.arange(begin, end) + first
                feed.logits = None if logits is None else logits[begin:end]
                begin = end
        self._all = made._all

    def join(self, other: Decoders) -> dict[DecoderFactory, int]:
        """Append the rows of others, which are not used afterwards. The index of the first of
        them.
        """
        first_rows = {}
        for factory, (theirs, count) in other._all.items():
            ours, first_rows[factory] = self._all.get(factory, (theirs, 0))
            if first_rows[factory]:
                factory.join(ours, theirs)
            self._all[factory] = ours, first_rows[factory] + count
        return first_rows

    def _rows(self, factory: DecoderFactory, rows: Ids, uses: int) -> Any:
        """A decoder with some rows: the same one where it has no others, and this is its only
        use.
        """
        decoder, size = self._all[factory]
        if uses == 1 and len(rows) == size and (rows == np.arange(size)).all():
            return decoder
        return factory.take(decoder, rows)


def _joined(arrays: Sequence[Any]) -> Any:
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
