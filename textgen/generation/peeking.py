"""Log-probabilities of what may follow a prompt, by a strategy that adds no token."""

from __future__ import annotations

import attrs

from textgen.errors import UsageError
from textgen.generation.texts.row import Row
from textgen.protocols import Floats, Lanes, Ranking


class Peek:
    """The strategy of a text that ends after its prompt, and notes what may follow it.

    row  of the text: with the prompt and the samplers of another
    """

    lanes = 1

    def __init__(self, other: Row) -> None:
        chain = attrs.evolve(other.request.chain, strategy=(self, other.request.chain.model))
        request = attrs.evolve(other.request, chain=chain, max_new_tokens=None, keep_state=False)
        self.row = Row.begin(other.tokenizer, request, other.index)
        self._found: tuple[Floats, Floats] | None = None

    def step(self, lanes: Lanes) -> Ranking:
        """End the text, with the log-probabilities of its first token."""
        self._found = lanes.fed(0)[-1], lanes.sampled()[0]
        return Ranking([0])

    def found(self) -> tuple[Floats, Floats]:
        """(V,) log-probabilities, by the model and after the samplers, once the row has ended.

        Raises its error, and UsageError where the time limit or `cancelled` came first.
        """
        if self.row.error is not None:
            raise self.row.error
        if self._found is None:
            raise UsageError(f"the prompt was not read to its end: {self.row.reason}")
        return self._found
