"""The contract of samplers."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Unpack

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import ContractError
from textgen.files.reading import dump_tensors, load_tensors
from textgen.generation.chain import LEVELS, Chain, Link
from textgen.generation.sampling import SequenceHistory, UnannouncedError, to_numpy
from textgen.plugin.component import Component
from textgen.protocols import Array
from textgen.testing.examples import generators, in_threads
from textgen.testing.outcomes import Outcome, Skip, Violation, shown
from textgen.testing.suite import Given, Suite, check
from textgen.testing.watching import later

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 25
_MANY, _LATE = 33, 60  # rows of the last example, and tokens before and after its prompts
_LARGEST: Final = 1e4  # of a logit: beyond, float32 leaves no room to compute in
_TOLERANCE: Final = 1e-4
_PROMPTS: Final = (0, 5, 40)  # their lengths
_STEPS: Final = 24
# What torch says where tensors of two devices meet, or one that is not on the CPU meets NumPy.
_IS_ELSEWHERE: Final = re.compile(
    r"expected device|same device|to have \w+ device|convert meta|ndarray", re.IGNORECASE
)
Logits = npt.NDArray[np.floating[Any]]


def check_sampler(component: Component, **given: Unpack[Given]) -> tuple[Outcome, ...]:
    """Hold a sampler to its contract. Raises ContractFailure."""
    return check(SamplerSuite, component, given)


@attrs.frozen
class SamplerSuite(Suite):
    """The checks of a sampler."""

    kind: ClassVar[str] = "sampler"

    @cached_property
    def chain(self) -> Chain:
        """A chain of this sampler alone."""
        return self._new_chain()

    def history(self) -> None:
        """The attribute `history`, and what is read."""
        level = getattr(self.new(training=False), "history", "tokens")
        if level not in LEVELS:
            raise Violation(f"history is {level!r}, and must be one of {', '.join(LEVELS)}")
        try:
            for logits, rows in self._examples():
                self._call(logits, rows)
        except UnannouncedError as error:
            anchor = "sampler-random" if error.name == "random" else ""
            raise Violation(str(error), anchor) from error

    def shape(self) -> None:
        for logits, rows in self._examples():
            self._check_form(logits, self._call(logits.copy(), rows))

    def input(self) -> None:
        for logits, rows in self._examples():
            given, before = logits.copy(), copy.deepcopy(rows.arrays)
            self._call(given, rows)
            for name, array in before.items():
                if not np.array_equal(rows.arrays[name], array):
                    raise Violation(f"it wrote into history.{name}")
            if not np.array_equal(given, logits):
                places = np.argwhere(given != logits)[0].tolist()
                raise Violation(f"it wrote into the logits that came in, at {places}")

    def deterministic(self) -> None:
        for logits, rows in self._examples():
            first = self._given(logits, rows)
            self._call(logits[::-1] / 2, rows)
            with later():
                again = self._given(logits, rows)
            anew = self.new(training=False)(logits.copy(), self.chain.links[0].view(rows))
            if not all(
                np.array_equal(first, to_numpy(made), equal_nan=True) for made in (again, anew)
            ):
                raise Violation("the same logits and history gave other logits a second time")

    def finite(self) -> None:
        for logits, rows in self._examples():
            given = self._given(logits, rows)
            for name, wrong in (("NaN", np.isnan(given)), ("+inf", given == np.inf)):
                if wrong.any():
                    raise Violation(f"it made {name} of the logit {logits[wrong][0]:g}")

    def possible(self) -> None:
        for logits, rows in self._examples():
            impossible = (self._given(logits, rows) == -np.inf).all(axis=1)
            if impossible.any() and not self.chain.links[0].ends:
                raise Violation("it forbade every token of a row")

    def forbidden(self) -> None:
        for logits, rows in self._examples():
            if (self._given(logits, rows)[logits == -np.inf] > -np.inf).any():
                raise Violation("a token of logit -inf came back possible")

    def rows(self) -> None:
        for logits, rows in self._examples():
            together = self._given(logits, rows)
            for row in range(len(logits)):
                alone = self._given(logits[[row]], rows.rows([row]))
                if not _close(alone[0], together[row]):
                    which = f"row {row} of {len(logits)}"
                    raise Violation(f"{which} gives something else alone than in the batch")

    def promise(self) -> None:
        if not self.chain.links[0].deterministic:
            raise Skip("it does not promise to be deterministic")
        for logits, rows in self._examples():
            left = self._given(logits, rows) > -np.inf
            if (left.sum(axis=1) != 1).any() or (left.argmax(1) != logits.argmax(1)).any():
                tokens = np.flatnonzero(left[0]).tolist()[:5]
                raise Violation(f"it left the tokens {tokens} in a row")

    def torch(self) -> None:
        import torch

        for logits, rows in self._examples():
            tensor = torch.from_numpy(logits.copy())
            given = self._call(tensor, rows)
            self._check_form(tensor, given)
            if not _close(to_numpy(given), self._given(logits, rows)):
                raise Violation("a tensor gave other logits than an array of the same numbers")

    def device(self) -> None:
        """Tensors of torch's device "meta", which have shapes and no numbers: all of a GPU that no
        machine lacks.
        """
        import torch

        logits = torch.empty((2, self.chain.vocab_size), device="meta")
        try:
            given = self._call(logits, self._texts(2, 0, 6))
        except Exception as error:
            if _IS_ELSEWHERE.search(str(error)):
                raise
            return  # it looks at a number, which is not there to be looked at
        self._check_form(logits, given)

    def threads(self) -> None:
        examples = list(itertools.islice(self._examples(), 6))
        alone = list(itertools.starmap(self._given, examples))

        def work(index: int) -> bool:
            calls = (self._given(*examples[index]) for _ in range(30))
            return all(np.array_equal(made, alone[index], equal_nan=True) for made in calls)

        if not all(in_threads(work)):
            raise Violation("a call gave other logits while other threads called too")

    def state_form(self) -> None:
        """The states that `start` and `accept` give; `accept` writes into none."""
        try:
            chain = self._stateful()
            (link,), rows = chain.links, self._begin(chain)
            for logits, _ in self._steps()[:3]:
                before = copy.deepcopy(link.state(rows))
                given = link.sampler(logits.copy(), link.view(rows))
                tokens = to_numpy(given).argmax(axis=-1)
                after = link.accept(tokens, given, rows)
                for name, array in before.items():
                    if not np.array_equal(array, link.state(rows)[name]):
                        seen = f"accept wrote into history.state[{name!r}]; it returns the state"
                        raise Violation(seen, "sampler-input")
                rows.arrays |= after
                rows.add(tokens)
        except ContractError as error:
            raise Violation(error.cause) from error

    def state(self) -> None:
        """A text is the same wherever its row goes between two steps."""
        chain, every = self._stateful(), range(len(_PROMPTS))
        given = self._walk(chain, self._begin(chain), every)
        half = (len(given) - 1) // 2
        if half < 1:
            raise Skip("its texts end at once")
        middle = self._begin(chain)
        self._walk(chain, middle, every, 0, half)
        for row in every:
            beginning = self._begin(chain).rows([row])
            self._compare(given, self._walk(chain, beginning, [row]), [row], "than in a batch")
            other = self._new_chain()
            loaded = other.begin([np.empty(0, np.int64)], [(7, row)])
            loaded.load_row(0, load_tensors(Path("state"), dump_tensors(middle.save_row(row))))
            resumed = self._walk(other, loaded, [row], half)
            self._compare(given[half:], resumed, [row], "once saved and resumed")
        for order, what in (([2, 1, 0], "change places"), ([1], "leave"), ([1, 1], "are forked")):
            moved = self._walk(chain, middle.rows(order), order, half)
            self._compare(given[half:], moved, order, f"once rows {what}")

    def random(self) -> None:
        """A row gives the same with other numbers beside it."""
        chain = self.chain
        if not chain.links[0].random:
            raise Skip("it reads no random numbers")
        rows = self._begin(chain)
        for logits, uniforms in self._steps():
            given = self._given(logits, rows)
            for row in range(len(_PROMPTS)):
                changed = copy.deepcopy(rows)
                changed.streams[np.arange(len(_PROMPTS)) != row] += np.uint64(100)
                if not _close(given[row], self._given(logits, changed)[row]):
                    seen = f"row {row} gives other logits once other rows have other numbers"
                    raise Violation(seen)
            if (chain.pick(logits, rows, uniforms) < 0).any():
                return

    def _check_form(self, logits: Array, given: Array) -> None:
        if shown(given) != shown(logits):
            raise Violation(f"logits {shown(logits)} came back as {shown(given)}")

    def _new_chain(self) -> Chain:
        offer = self.subject.offer
        link = Link.of(self.new(training=False), offer, 0, 0)
        return Chain((link,), offer, self.subject.tokenizer.vocab_size)

    def _stateful(self) -> Chain:
        """A new chain, whose sampler has a state."""
        chain = self._new_chain()
        if not chain.links[0].has_state:
            raise Skip("it keeps no state")
        return chain

    def _call(self, logits: Array, rows: SequenceHistory, chain: Chain | None = None) -> Array:
        (link,) = (chain or self.chain).links
        with np.errstate(invalid="ignore"):  # sampler-finite reports NaN
            return link.sampler(logits, link.view(rows))

    def _given(self, logits: Logits, rows: SequenceHistory, chain: Chain | None = None) -> Logits:
        """What the sampler makes of logits, as an array of its own."""
        return to_numpy(self._call(logits.copy(), rows, chain)).copy()

    def _examples(self) -> Iterator[tuple[Logits, SequenceHistory]]:
        """Logits (B, V), small and large ones, with ties and impossible tokens, of which a row has
        one possible at least; and histories.
        """
        size = self.chain.vocab_size
        for seed, rng in enumerate(generators(_EXAMPLES)):
            is_large = seed == _EXAMPLES - 1
            batch = _MANY if is_large else int(rng.integers(1, 5))
            logits = rng.uniform(-1, 1, (batch, size)) * rng.choice(
                [0, 1, 30, _LARGEST], (batch, 1)
            )
            logits = np.where(rng.random((batch, 1)) < 0.5, np.round(logits), logits)
            share = rng.choice([0, 0.2, 0.99], (batch, 1))
            logits[rng.random((batch, size)) < share] = -np.inf
            logits[(logits == -np.inf).all(axis=1), 0] = 0
            rows = self._texts(batch, seed, _LATE if is_large else seed % 13)
            yield logits.astype(np.float32) if seed % 2 else logits, rows

    def _texts(self, batch: int, seed: int, length: int) -> SequenceHistory:
        """Rows with prompts of `length` tokens and as many after them, in which tokens repeat.

        A sampler with a state, or one that ends texts, is asked what may come; once it ends a row,
        nothing is added.
        """
        rng, chain = np.random.default_rng(seed), self.chain
        few = rng.integers(0, chain.vocab_size, 3)
        prompts = [rng.choice(few, length) for _ in range(batch)]
        rows = chain.begin(prompts, [(seed, row) for row in range(batch)])
        for _ in range(length):
            logits = rng.normal(0, 3, (batch, chain.vocab_size))
            if not (chain.links[0].has_state or chain.links[0].ends):
                rows.add(rng.choice(few, batch))
            elif (chain.pick(logits, rows, rng.random(batch)) < 0).any():
                break
        return rows

    def _begin(self, chain: Chain) -> SequenceHistory:
        """A row for each length of a prompt."""
        rng = np.random.default_rng(1)
        prompts = [rng.integers(0, chain.vocab_size, length) for length in _PROMPTS]
        return chain.begin(prompts, [(7, row) for row in range(len(_PROMPTS))])

    def _steps(self) -> list[tuple[Logits, npt.NDArray[np.float64]]]:
        """Logits (B, V), and the numbers (B,) that tokens are drawn by."""
        shape = len(_PROMPTS), self.chain.vocab_size
        return [
            (rng.normal(0, 3, shape).astype(np.float32), rng.random(len(_PROMPTS)))
            for rng in generators(_STEPS)
        ]

    def _walk(
        self,
        chain: Chain,
        rows: SequenceHistory,
        order: Sequence[int],
        begin: int = 0,
        end: int = _STEPS,
    ) -> list[Logits]:
        """What the sampler gives (B, V) at each step, up to one that ends a text; `order` says
        which rows of the steps these are.
        """
        outputs = []
        for logits, uniforms in self._steps()[begin:end]:
            outputs.append(self._given(logits[order], rows, chain))
            if (chain.pick(logits[order], rows, uniforms[order]) < 0).any():
                break
        return outputs

    def _compare(
        self, expected: list[Logits], given: list[Logits], order: Sequence[int], what: str
    ) -> None:
        """Raise a Violation where the logits of a row differ."""
        for step, (before, after) in enumerate(zip(expected, given, strict=False), 1):
            for place, row in enumerate(order):
                if not _close(after[place], before[row]):
                    raise Violation(f"row {row} gives other logits {what}, {step} steps on")


def _close(given: Logits, expected: Logits) -> bool:
    """Whether logits are the same but for rounding."""
    return np.allclose(given, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
