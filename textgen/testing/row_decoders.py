"""The contract of decoders whose rows come and go, where a model's decoders offer that."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as strategy

from textgen.generation.sampling import to_numpy
from textgen.protocols import Array, Ids
from textgen.testing.decoders import DecoderSuite

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component


def check_rows_come_and_go(suite: DecoderSuite) -> None:
    """Rows taken, joined and saved, if the decoder offers to."""
    offered = [
        name for name in ("take", "join") if callable(getattr(suite.model.decoder(1), name, None))
    ]
    if len(offered) == 1:
        suite.fail(f"the decoder offers {offered[0]}() alone")
    if offered:
        rows = _Rows(suite)
        suite.each(rows.take, place=strategy.integers(0, 9))
        suite.each(rows.join, place=strategy.integers(0, 9))


class _Rows:
    """Compares rows of one decoder with the same rows alone."""

    def __init__(self, suite: DecoderSuite) -> None:
        self.suite, self.model = suite, suite.model
        self.is_exact = getattr(suite.model.decoder(1), "exact_rows", True)

    def same(self, given: Array, expected: Array, what: str) -> None:
        self.suite.same(given, to_numpy(expected), what)
        if self.is_exact:
            self.suite.same(
                given, to_numpy(expected), what, ", though exact_rows is not False", slack=0
            )

    def size(self, decoder: Any, rows: int, what: str) -> None:
        if decoder.batch_size != rows:
            self.suite.fail(f"after {what}, batch_size is {decoder.batch_size}, not {rows}")

    def fed(self, *calls: Ids) -> tuple[Any, Array]:
        """A decoder, and a copy of the logits after the last of these calls."""
        decoder = self.model.decoder(len(calls[0]))
        logits = [to_numpy(decoder.extend(tokens)).copy() for tokens in calls]
        return decoder, logits[-1]

    def take(self, fed: Ids, place: int) -> None:
        """Rows taken go on as the decoder's own rows, which do not notice."""
        place = min(place, fed.shape[1] - 1)
        before, after = fed[:, :place], fed[:, place:]
        rows = [len(fed) - 1, 0, len(fed) - 1]
        _, here = self.fed(before)
        _, there = self.fed(before, after)
        decoder, _ = self.fed(before)
        for which in ("take()", "a second take()"):
            taken = decoder.take(rows)
            self.size(taken, len(rows), which)
            self.same(
                taken.extend(fed[rows, :0]),
                here[rows],
                f"extend() of no tokens after {which} of rows {rows}",
            )
            self.same(
                taken.extend(after[rows]), there[rows], f"extend() after {which} of rows {rows}"
            )
        self.size(decoder, len(fed), "take()")
        self.same(decoder.extend(after), there, "the decoder that rows were taken from")

    def join(self, fed: Ids, place: int) -> None:
        """Rows joined go on as each decoder's rows alone, and so does the state of each."""
        ours, theirs = fed[:, :place], np.concatenate([fed[:1], fed[:1]], axis=1)
        decoder, mine = self.fed(ours)
        other, others = self.fed(theirs)
        decoder.join(other)
        self.size(decoder, len(fed) + 1, "join()")
        steps = np.concatenate([fed, fed[-1:]])
        self.same(
            decoder.extend(steps[:, :0]),
            np.concatenate([mine, others]),
            "extend() of no tokens after join()",
        )
        alone = [self.fed(ours[i : i + 1])[0] for i in range(len(fed))] + [self.fed(theirs)[0]]
        for begin, end in ((0, 1), (1, fed.shape[1])):
            if begin < end:
                expected = [
                    to_numpy(d.extend(steps[i : i + 1, begin:end])).copy()
                    for i, d in enumerate(alone)
                ]
                self.same(
                    decoder.extend(steps[:, begin:end]),
                    np.concatenate(expected),
                    "extend() after join()",
                )
        for row, single in enumerate(alone):
            self._state(decoder.take([row]), single, steps[row : row + 1])

    def _state(self, taken: Any, single: Any, tokens: Ids) -> None:
        """The state of one row has the form of one alone, and another decoder goes on from it."""
        state, expected = taken.read_state(), single.read_state()
        forms = [
            {name: (array.dtype, array.shape) for name, array in each.items()}
            for each in (state, expected)
        ]
        if forms[0] != forms[1]:
            name = next(
                name
                for name in {**forms[0], **forms[1]}
                if forms[0].get(name) != forms[1].get(name)
            )
            after, alone = (form.get(name) for form in forms)
            self.suite.fail(
                f"after join() and take(), {name} of a row's state has {after}, alone {alone}"
            )
        other = self.model.decoder(1)
        other.write_state(state)
        self.same(
            other.extend(tokens),
            single.extend(tokens),
            "a decoder that took over the state of a joined row",
        )
