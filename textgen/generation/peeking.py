"""What may follow a prompt, found by a strategy that adds no token."""

from __future__ import annotations

from typing import Self

import attrs

from textgen.errors import UsageError
from textgen.generation.row import Row
from textgen.protocols import Floats, Lanes, Ranking


class Peek:
    """The strategy of a text that ends after its prompt, and notes what may follow it."""

    lanes = 1

    def __init__(self) -> None:
        self._found: tuple[Floats, Floats] | None = None

    @classmethod
    def at(cls, row: Row) -> tuple[Row, Self]:
        """A row with the prompt and the samplers of another, and the strategy that makes it."""
        request, peek = row.request, cls()
        chain = attrs.evolve(request.chain, strategy=(peek, request.chain.model))
        request = attrs.evolve(request, chain=chain, max_new_tokens=None, keep_state=False)
        return Row.begin(row.tokenizer, request, row.index), peek

    def step(self, lanes: Lanes) -> Ranking:
        """End the text, with the log-probabilities of its first token."""
        self._found = lanes.fed(0)[-1], lanes.sampled()[0]
        return Ranking([0])

    def found(self, row: Row) -> tuple[Floats, Floats]:
        """(V,) log-probabilities, by the model and after the samplers, once the row has ended.

        Raises its error, and UsageError where the time limit or `cancelled` came first.
        """
        if row.error is not None:
            raise row.error
        if self._found is None:
            argument = "time_limit" if row.reason == "time" else "cancelled"
            raise UsageError("the prompt was not read to its end", argument=argument)
        return self._found
