"""The contract of samplers."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.generation.sampling.chain import Chain, Link
from textgen.generation.sampling.draw import to_numpy
from textgen.generation.sampling.history import SequenceHistory, UnannouncedError
from textgen.protocols import Array
from textgen.testing.outcomes import Violation, shown
from textgen.testing.process import in_threads
from textgen.testing.texts import TextSuite

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 25
_MANY_ROWS, _LATE_TOKENS = 33, 60  # of the last example: rows, and tokens before and after
_THREADS, _THREAD_CALLS = 4, 200  # threads that call it, and calls of each
_PAUSE: Final = 1e-6  # seconds
_LARGEST_LOGIT: Final = 1e4  # of a logit: beyond, float32 leaves no room to compute in
# What torch says where tensors of two devices meet, or one that is not on the CPU meets NumPy.
_IS_ELSEWHERE: Final = re.compile(
    r"expected device|same device|to have \w+ device|convert meta|ndarray", re.IGNORECASE
)
Logits = npt.NDArray[np.floating[Any]]


@attrs.frozen(kw_only=True)
class SamplerSuite(TextSuite):
    """The checks of a sampler."""

    def within(self, chain: Chain) -> Chain:
        link = Link.of(self.new(training=False), self.offer, len(chain.links), 0)
        return attrs.evolve(chain, links=(*chain.links, link))

    @cached_property
    def chain(self) -> Chain:
        """A chain of this sampler alone."""
        return self.within(Chain((), self.offer, self.tokenizer.vocab_size))

    def sampler_history(self) -> None:
        try:
            for logits, rows in self._examples():
                self._call(logits, rows)
        except UnannouncedError as error:
            raise Violation(str(error)) from error

    def sampler_shape(self) -> None:
        for logits, rows in self._examples():
            _check_form(logits, self._call(logits, rows))

    def sampler_input(self) -> None:
        """Arguments that it and its `accept` are called with."""
        (link,) = self.chain.links
        for logits, rows in self._examples():
            given, before = logits.copy(), copy.deepcopy(rows.arrays)
            made = self._call(given, rows)
            if not np.array_equal(given, logits):
                raise Violation("it wrote into the logits that came in")
            if link.has_state:
                link.accept(to_numpy(made).argmax(axis=-1), made, rows)
            for name, array in before.items():
                if not np.array_equal(rows.arrays[name], array):
                    raise Violation(f"it wrote into history.{name}")

    def sampler_values(self) -> None:
        for logits, rows in self._examples():
            given = self._given(logits, rows)
            for name, wrong in (("NaN", np.isnan(given)), ("+inf", given == np.inf)):
                if wrong.any():
                    raise Violation(f"it made {name} of the logit {logits[wrong][0]:g}")
            if (given == -np.inf).all(axis=1).any() and not self.chain.links[0].ends:
                raise Violation("it forbade every token of a row")
            if (given[logits == -np.inf] > -np.inf).any():
                raise Violation("a token of logit -inf came back possible")

    def sampler_deterministic(self) -> None:
        """Calls again and anew, of the chain that was built when the network had other weights."""
        network = self._plain.model
        network.load_tensors({name: -array for name, array in network.tensors().items()})
        for logits, rows in self._examples():
            first = self._given(logits, rows)
            self._call(logits[::-1] / 2, rows)
            again = self._given(logits, rows)
            anew = self.new(training=False)(logits.copy(), self.chain.links[0].view(rows))
            for made in (again, to_numpy(anew)):
                if not np.array_equal(first, made, equal_nan=True):
                    raise Violation("the same logits and history gave other logits a second time")
        examples = [*self._examples()]
        given = [self._given(*example) for example in examples]
        in_threads(partial(self._same_again, examples, given), range(_THREADS))

    def _same_again(
        self, examples: Sequence[tuple[Logits, SequenceHistory]], given: Sequence[Logits], turn: int
    ) -> None:
        """Raise a Violation unless it gives the same for all examples, beginning with another one
        in each thread.
        """
        for number in range(turn, turn + _THREAD_CALLS):
            index = number % len(examples)
            logits, rows = examples[index]
            made = self._call(logits.copy(), rows)
            time.sleep(_PAUSE)  # in which others may write into what this thread was given
            if not np.array_equal(to_numpy(made), given[index], equal_nan=True):
                raise Violation("with other threads at work, it gave other logits")

    def sampler_rows(self) -> None:
        for logits, rows in self._examples():
            together = self._given(logits, rows)
            for row in range(len(logits)):
                alone = self._given(logits[[row]], rows.rows([row]))
                if not _close(alone[0], together[row]):
                    raise Violation(f"row {row} of {len(logits)} gives something else alone")

    def sampler_texts(self) -> None:
        self.check_texts()

    def sampler_memory(self) -> None:
        self.check_memory()

    def sampler_torch(self) -> None:
        """Tensors on the CPU, and on torch's device "meta", which have shapes and no numbers: all
        of a GPU that no machine lacks.
        """
        import torch

        for logits, rows in self._examples():
            tensor = torch.from_numpy(logits.copy())
            given = self._call(tensor, rows)
            _check_form(tensor, given)
            if not _close(to_numpy(given), self._given(logits, rows)):
                raise Violation("a tensor gave other logits than an array of the same numbers")
        meta = torch.empty((2, self.chain.vocab_size), device="meta")
        try:
            given = self._call(meta, self._texts(2, 0, 6))
        except Exception as error:
            if _IS_ELSEWHERE.search(str(error)):
                raise
            return  # it looks at a number, which is not there to be looked at
        _check_form(meta, given)

    def _call(self, logits: Array, rows: SequenceHistory) -> Array:
        (link,) = self.chain.links
        with np.errstate(invalid="ignore"):  # sampler-values reports NaN
            return link.sampler(logits, link.view(rows))

    def _given(self, logits: Logits, rows: SequenceHistory) -> Logits:
        """The sampler's result for logits, as an array of its own."""
        return to_numpy(self._call(logits.copy(), rows)).copy()

    def _examples(self) -> Iterator[tuple[Logits, SequenceHistory]]:
        """Logits (B, V), small and large ones, with ties and impossible tokens, of which a row has
        one possible at least; and histories.
        """
        size = self.chain.vocab_size
        for seed, rng in enumerate(map(np.random.default_rng, range(_EXAMPLES))):
            is_last = seed == _EXAMPLES - 1
            batch = _MANY_ROWS if is_last else int(rng.integers(1, 5))
            logits = rng.uniform(-1, 1, (batch, size)) * rng.choice(
                [0, 1, 30, _LARGEST_LOGIT], (batch, 1)
            )
            logits = np.where(rng.random((batch, 1)) < 0.5, np.round(logits), logits)
            logits[rng.random((batch, size)) < rng.choice([0, 0.2, 0.99], (batch, 1))] = -np.inf
            logits[:, 0] = np.maximum(logits[:, 0], -_LARGEST_LOGIT)
            rows = self._texts(batch, seed, _LATE_TOKENS if is_last else seed % 13)
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


def _check_form(logits: Array, given: Array) -> None:
    if shown(given) != shown(logits):
        raise Violation(f"logits {shown(logits)} came back as {shown(given)}")


def _close(given: Logits, expected: Logits) -> bool:
    """Whether logits are the same but for rounding."""
    return np.allclose(given, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
