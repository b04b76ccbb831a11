"""Texts to try a sampler with, as the engine keeps them, and the checks of states and random
numbers.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import ContractError
from textgen.files.reading import dump_tensors, load_tensors
from textgen.generation.chain import Chain, Link
from textgen.generation.sampling import SequenceHistory, to_numpy
from textgen.testing.environment import Subject
from textgen.testing.outcomes import Skip, Violation

__tracebackhide__ = True  # pytest shows the test and the code of the component

_PROMPTS: Final = (0, 5, 40)  # their lengths
_STEPS: Final = 24
_TOLERANCE: Final = 1e-4


def chain_of(sampler: Any, subject: Subject) -> Chain:
    """A chain of one sampler. Raises ContractError."""
    link = Link.of(sampler, subject.offer, 0, 0)
    return Chain((link,), subject.offer, subject.tokenizer.vocab_size)


def texts_of(chain: Chain, batch: int, seed: int, length: int) -> SequenceHistory:
    """Rows with prompts of `length` tokens and as many after them, in which tokens repeat.

    A sampler with a state, or one that ends texts, is asked what may come; once it ends a row,
    nothing is added.
    """
    rng, size, link = np.random.default_rng(seed), chain.vocab_size, chain.links[0]
    few = rng.integers(0, size, 3)
    rows = chain.begin(
        [rng.choice(few, length) for _ in range(batch)], [(seed, row) for row in range(batch)]
    )
    for _ in range(length):
        logits = rng.normal(0, 3, (batch, size))
        if not (link.has_state or link.ends):
            rows.add(rng.choice(few, batch))
        elif (chain.pick(logits, rows, rng.random(batch)) < 0).any():
            break
    return rows


def close(given: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    """Whether logits are the same but for rounding."""
    return np.allclose(given, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)


@attrs.frozen
class StateChecks:
    """What a sampler keeps for each row, and the random numbers that it reads."""

    subject: Subject

    def form(self) -> None:
        """Check the states that `start` and `accept` give."""
        try:
            chain = self._chain()
            if not chain.links[0].has_state:
                raise Skip("it keeps no state")
            rows = self._rows(chain)
            for logits, _ in itertools.islice(self._steps(len(_PROMPTS)), 3):
                self._accept(chain.links[0], logits, rows)
        except ContractError as error:
            raise Violation(error.cause) from error

    def state(self) -> None:
        """A text is the same wherever its row goes between two steps."""
        chain = self._chain()
        if not chain.links[0].has_state:
            raise Skip("it keeps no state")
        steps = list(self._steps(len(_PROMPTS)))
        made = len(self._outputs(chain, self._rows(chain), steps, range(len(_PROMPTS))))
        if made < len(steps):  # a text ended there
            steps = steps[: made - 1]
        rows, half = self._rows(chain), len(steps) // 2
        if not half:
            raise Skip("its texts end at once")
        given = self._outputs(chain, rows, steps[:half], range(len(_PROMPTS)))
        middle = copy.deepcopy(rows)
        given += self._outputs(chain, rows, steps[half:], range(len(_PROMPTS)))
        for row in range(len(_PROMPTS)):
            alone = self._rows(chain).rows([row])
            self._same(
                given, self._outputs(chain, alone, steps, [row]), [row], "alone than in a batch"
            )
        for order, what in (
            ([2, 1, 0], "once rows change places"),
            ([1], "once others leave"),
            ([1, 1], "forked"),
        ):
            moved = middle.rows(order)
            self._same(
                given[half:],
                self._outputs(chain, moved, steps[half:], order),
                order,
                f"{what} than before",
            )
        for row in range(len(_PROMPTS)):
            other = self._chain()
            saved = dump_tensors(middle.save_row(row))
            loaded = other.begin([np.empty(0, np.int64)], [(7, row)])
            loaded.load_row(0, load_tensors(Path("state"), saved))
            resumed = self._outputs(other, loaded, steps[half:], [row])
            self._same(given[half:], resumed, [row], "saved and resumed than in one go")

    def random(self) -> None:
        """Each row has numbers of its own: with other numbers beside it, a row gives the same."""
        chain = self._chain()
        if not chain.links[0].random:
            raise Skip("it reads no random numbers")
        rows, first, others = self._rows(chain), slice(1), slice(1, None)
        for logits, uniforms in self._steps(len(_PROMPTS)):
            given = self._output(chain, logits, rows)
            for row, mine, rest, whose in (
                (0, first, others, "other rows have"),
                (1, others, first, "row 0 has"),
            ):
                changed = copy.deepcopy(rows)
                changed.streams[rest] += np.uint64(100)
                again = self._output(chain, logits, changed)
                if not close(given[mine], again[mine]):
                    raise Violation(f"row {row} gives other logits once {whose} other numbers")
            if (chain.pick(logits, rows, uniforms) < 0).any():
                return

    def _chain(self) -> Chain:
        return chain_of(
            self.subject.build(self.subject.fitted_context(training=False)), self.subject
        )

    def _rows(self, chain: Chain) -> SequenceHistory:
        rng = np.random.default_rng(1)
        prompts = [
            rng.integers(0, self.subject.tokenizer.vocab_size, length) for length in _PROMPTS
        ]
        return chain.begin(prompts, [(7, row) for row in range(len(_PROMPTS))])

    def _steps(
        self, batch: int
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]]:
        """Logits (B, V), and the numbers (B,) that tokens are drawn by."""
        rng = np.random.default_rng(0)
        for _ in range(_STEPS):
            yield (
                rng.normal(0, 3, (batch, self.subject.tokenizer.vocab_size)).astype(np.float32),
                rng.random(batch),
            )

    def _outputs(
        self, chain: Chain, rows: SequenceHistory, steps: Sequence[Any], order: Sequence[int]
    ) -> list[npt.NDArray[Any]]:
        """What the sampler gives (B, V) at each step, as far as it ends no text; `order` says which
        rows these are.
        """
        outputs = []
        for logits, uniforms in steps:
            mine = logits[list(order)]
            outputs.append(self._output(chain, mine, rows))
            if (chain.pick(mine, rows, uniforms[list(order)]) < 0).any():
                break
        return outputs

    def _output(
        self, chain: Chain, logits: npt.NDArray[Any], rows: SequenceHistory
    ) -> npt.NDArray[Any]:
        link = chain.links[0]
        return to_numpy(link.sampler(logits.copy(), link.view(rows))).copy()

    def _same(
        self,
        expected: Sequence[npt.NDArray[Any]],
        given: Sequence[npt.NDArray[Any]],
        order: Sequence[int],
        what: str,
    ) -> None:
        for step, (before, after) in enumerate(zip(expected, given, strict=False)):
            for place, row in enumerate(order):
                if not close(after[place], before[row]):
                    raise Violation(
                        f"row {row} of {len(_PROMPTS)} gives other logits {what}, "
                        f"{step + 1} steps on"
                    )

    def _accept(self, link: Link, logits: npt.NDArray[Any], rows: SequenceHistory) -> None:
        """A step, in which `accept` gives a state, and writes into none."""
        before = copy.deepcopy(link.state(rows))
        given = link.sampler(logits.copy(), link.view(rows))
        tokens = to_numpy(given).argmax(axis=-1)
        after = link.accept(tokens, given, rows)
        for name, array in before.items():
            if not np.array_equal(array, link.state(rows)[name]):
                raise Violation(
                    f"accept wrote into history.state[{name!r}]; it returns the state",
                    "sampler-input",
                )
        rows.arrays |= after
        rows.add(tokens)
