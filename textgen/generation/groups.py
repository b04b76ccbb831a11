"""Rows of a batch whose tokens are drawn together, since they share a chain of samplers."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.checks import FAILURES
from textgen.generation.chain import Chain
from textgen.generation.row import Row, reading_state
from textgen.generation.sampling import SequenceHistory
from textgen.protocols import Array, Ids


@attrs.define(eq=False)
class Group:
    """The rows of a batch that share a chain: their places in it, ascending, and their history in that order."""

    chain: Chain
    history: SequenceHistory
    rows: Ids
    failed: bool = False

    @classmethod
    def of(cls, rows: list[Row]) -> list[Group]:
        """The groups of newcomers."""
        places: dict[Chain, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.settings.chain, []).append(place)
        return [
            cls(chain, begun(chain, [rows[i] for i in mine]), np.array(mine))
            for chain, mine in places.items()
        ]

    def pick(self, logits: Array, uniforms: npt.NDArray[np.float64], rows: list[Row]) -> Ids:
        """A token (B,) for each row of logits (B, V). What goes wrong with one row is its `error`, and no other's."""
        try:
            if len(self.rows) == 1:
                return np.array([self.chain.pick_one(logits, self.history, uniforms.item(), ())])
            return self.chain.pick(logits, self.history, uniforms)
        except FAILURES as error:
            self.failed = True
            if len(self.rows) == 1:
                rows[int(self.rows[0])].error = error
                return np.zeros(1, np.int64)
        tokens = np.zeros(len(self.rows), np.int64)
        for i, place in enumerate(self.rows.tolist()):
            try:
                history = self.history.rows(slice(i, i + 1))
                tokens[i] = self.chain.pick_one(logits[i : i + 1], history, uniforms.item(i), ())
            except FAILURES as error:
                rows[place].error = error
        return tokens

    def keep(self, places: dict[int, int]) -> bool:
        """Keep the rows that have a new place. Whether any is left."""
        kept = [i for i, row in enumerate(self.rows.tolist()) if row in places]
        self.history.keep_rows(kept)
        self.rows = np.array([places[int(self.rows[i])] for i in kept], np.int64)
        return bool(kept)


def begun(chain: Chain, rows: list[Row]) -> SequenceHistory:
    """The history of rows that have drawn nothing yet."""
    history = chain.begin(
        [row.ids for row in rows], [(row.request.seed, row.index) for row in rows]
    )
    for place, row in enumerate(rows):
        if row.start is not None:
            with reading_state():
                history.load_row(place, row.start.history, row.start.lengths)
            history.extend_prompt(place, row.ids)
    return history
