"""The contract of samplers."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.generation.chain import LEVELS, Chain
from textgen.generation.sampling import SequenceHistory, UnannouncedError, to_numpy
from textgen.plugin.component import Component
from textgen.plugin.registry import PluginSet
from textgen.protocols import Array
from textgen.testing.environment import Subject, subject
from textgen.testing.examples import in_threads
from textgen.testing.general import general_checks
from textgen.testing.outcomes import Check, Outcome, Skip, Violation, raise_first, run_checks, shown
from textgen.testing.sampler_texts import StateChecks, chain_of, close, texts_of
from textgen.testing.time_limit import TIME_LIMIT

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 25
_LARGEST: Final = 1e4  # of a logit: beyond, float32 leaves no room to compute in
# What torch says where tensors of two devices meet, or one that is not on the CPU meets NumPy.
_IS_ELSEWHERE: Final = re.compile(
    r"expected device|same device|to have \w+ device|convert meta|ndarray", re.IGNORECASE
)
Logits = npt.NDArray[np.floating[Any]]


def check_sampler(
    component: Component,
    *,
    options: Mapping[str, Any] | None = None,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    time_limit: float = TIME_LIMIT,
) -> tuple[Outcome, ...]:
    """Hold a sampler to its contract. Raises ContractFailure.

    options     its TOML table; what has no default must be in it
    plugin      the module it comes from, or its name; found from the component if not given
    plugins     what its context offers; the built-in set if not given
    time_limit  seconds for each check
    """
    with subject("sampler", component, options, plugin, plugins, time_limit=time_limit) as made:
        return raise_first(run_checks(sampler_checks(made), made))


def sampler_checks(subject: Subject) -> list[Check]:
    """The suite."""
    suite, states = _Suite(subject), StateChecks(subject)

    def each(check: Callable[[Logits, SequenceHistory], object]) -> Callable[[], None]:
        return lambda: suite.each(check)

    return [
        *general_checks(subject, suite.build),
        Check("sampler-history", suite.level),
        Check("sampler-state-form", states.form),
        Check("sampler-shape", each(suite.shape)),
        Check("sampler-dtype", each(suite.dtype)),
        Check("sampler-input", each(suite.input)),
        Check("sampler-finite", each(suite.finite)),
        Check("sampler-deterministic", each(suite.deterministic)),
        Check("sampler-possible", each(suite.possible)),
        Check("sampler-forbidden", each(suite.forbidden)),
        Check("sampler-random", states.random),
        Check("sampler-state", states.state),
        Check("sampler-rows", each(suite.rows)),
        Check("sampler-promise", suite.promise),
        Check("sampler-torch", each(suite.as_torch)),
        Check("sampler-device", suite.device),
        Check("sampler-threads", suite.threads),
    ]


@attrs.frozen
class _Suite:
    subject: Subject

    def build(self) -> Any:
        return self.subject.build(self.subject.fitted_context(training=False))

    @cached_property
    def sampler(self) -> Any:
        return self.build()

    @cached_property
    def chain(self) -> Chain:
        return chain_of(self.sampler, self.subject)

    def each(self, check: Callable[[Logits, SequenceHistory], object]) -> None:
        """Make a check with many logits (B, V) and histories."""
        size = self.subject.tokenizer.vocab_size
        for seed in range(_EXAMPLES):
            rng = np.random.default_rng(seed)
            batch, length = int(rng.integers(1, 5)), seed % 13
            logits = _logits(rng, batch, size)
            with np.errstate(invalid="ignore"):  # sampler-finite reports NaN
                check(
                    logits.astype(np.float32) if seed % 2 else logits,
                    texts_of(self.chain, batch, seed, length),
                )

    def _call(self, logits: Array, rows: SequenceHistory) -> Array:
        return self.sampler(logits, self.chain.links[0].view(rows))

    def _given(self, logits: Logits, rows: SequenceHistory) -> Logits:
        """What the sampler makes of logits, as an array of its own."""
        return to_numpy(self._call(logits.copy(), rows)).copy()

    def level(self) -> None:
        """The attribute `history`, and what is read."""
        level = getattr(self.sampler, "history", "tokens")
        if level not in LEVELS:
            raise Violation(f"history is {level!r}, and must be one of {', '.join(LEVELS)}")
        try:
            self.each(self._call)
        except UnannouncedError as error:
            anchor = "sampler-random" if error.name == "random" else ""
            raise Violation(str(error), anchor) from error

    def shape(self, logits: Logits, rows: SequenceHistory) -> None:
        given = self._call(logits.copy(), rows)
        if getattr(given, "shape", None) != logits.shape:
            raise Violation(f"logits {logits.shape} came back as {shown(given)}")

    def dtype(self, logits: Logits, rows: SequenceHistory) -> None:
        given = self._call(logits.copy(), rows)
        if not isinstance(given, np.ndarray) or given.dtype != logits.dtype:
            kind = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
            raise Violation(f"a NumPy array of {logits.dtype} came back as {kind}")

    def input(self, logits: Logits, rows: SequenceHistory) -> None:
        given, before = logits.copy(), copy.deepcopy(rows.arrays)
        self._call(given, rows)
        for name, array in before.items():
            if not np.array_equal(rows.arrays[name], array):
                raise Violation(f"it wrote into history.{name}")
        if not np.array_equal(given, logits):
            places = np.argwhere(given != logits)[0].tolist()
            raise Violation(f"it wrote into the logits that came in, at {places}")

    def deterministic(self, logits: Logits, rows: SequenceHistory) -> None:
        first = self._given(logits, rows)
        self._call(logits[::-1].copy() / 2, rows)
        again = self._given(logits, rows)
        anew = to_numpy(self.build()(logits.copy(), self.chain.links[0].view(rows)))
        if not all(np.array_equal(first, other, equal_nan=True) for other in (again, anew)):
            raise Violation("the same logits and history gave other logits a second time")

    def finite(self, logits: Logits, rows: SequenceHistory) -> None:
        given = self._given(logits, rows)
        for name, wrong in (("NaN", np.isnan(given)), ("+inf", given == np.inf)):
            if wrong.any():
                row, token = np.argwhere(wrong)[0].tolist()
                raise Violation(f"it made {name} of the logit {logits[row, token]:g}")

    def possible(self, logits: Logits, rows: SequenceHistory) -> None:
        if self.chain.links[0].ends:
            return
        given = self._given(logits, rows)
        if (given == -np.inf).all(axis=1).any():
            raise Violation("it forbade every token of a row")

    def forbidden(self, logits: Logits, rows: SequenceHistory) -> None:
        given = self._given(logits, rows)
        if (given[logits == -np.inf] > -np.inf).any():
            raise Violation("a token of logit -inf came back possible")

    def rows(self, logits: Logits, rows: SequenceHistory) -> None:
        together = self._given(logits, rows)
        for row in range(len(logits)):
            alone = self._given(logits[row : row + 1], rows.rows([row]))
            if not close(alone[0], together[row]):
                raise Violation(
                    f"row {row} of {len(logits)} gives something else alone than in the batch"
                )

    def promise(self) -> None:
        if not getattr(self.sampler, "deterministic", False):
            raise Skip("it does not promise to be deterministic")
        self.each(self._one_left)

    def _one_left(self, logits: Logits, rows: SequenceHistory) -> None:
        given = self._given(logits, rows)
        left = given > -np.inf
        if (left.sum(axis=1) != 1).any() or (left.argmax(axis=1) != logits.argmax(axis=1)).any():
            raise Violation(f"it left the tokens {np.flatnonzero(left[0]).tolist()[:5]} in a row")

    def as_torch(self, logits: Logits, rows: SequenceHistory) -> None:
        import torch

        given: Array = self._call(torch.from_numpy(logits.copy()), rows)
        if not isinstance(given, torch.Tensor) or str(given.dtype) != f"torch.{logits.dtype}":
            kind = getattr(given, "dtype", type(given).__name__)
            raise Violation(f"a tensor of torch.{logits.dtype} came back as {kind}")
        if not close(to_numpy(given), self._given(logits, rows)):
            raise Violation("a tensor gave other logits than an array of the same numbers")

    def device(self) -> None:
        """Tensors of torch's device "meta", which have shapes and no numbers: all of a GPU that no
        machine lacks.
        """
        import torch

        logits = torch.empty((2, self.subject.tokenizer.vocab_size), device="meta")
        try:
            given = self._call(logits, texts_of(self.chain, 2, 0, 6))
        except Exception as error:
            if _IS_ELSEWHERE.search(str(error)):
                raise
            return  # it looks at a number, which is not there to be looked at
        if given.device != logits.device:
            raise Violation(f"a tensor on another device came back on {given.device}")

    def threads(self) -> None:
        rng = np.random.default_rng(0)
        size = self.subject.tokenizer.vocab_size
        given = [rng.normal(0, 3, (2, size)) for _ in range(6)]
        texts = [texts_of(self.chain, 2, seed, 6) for seed in range(6)]
        alone = [*map(self._given, given, texts)]

        def work(index: int) -> bool:
            calls = (self._given(given[index], texts[index]) for _ in range(30))
            return all(np.array_equal(made, alone[index], equal_nan=True) for made in calls)

        if not all(in_threads(work)):
            raise Violation("a call gave other logits while other threads called too")


def _logits(rng: np.random.Generator, batch: int, size: int) -> npt.NDArray[np.float64]:
    """Logits (B, V), small and large ones, with ties and impossible tokens; at least one of a row
    is possible.
    """
    rows = (batch, 1)
    made = rng.uniform(-1, 1, (batch, size)) * rng.choice([0, 1, 30, _LARGEST], rows)
    logits: npt.NDArray[np.float64] = np.where(rng.random(rows) < 0.5, np.round(made), made)
    logits[rng.random((batch, size)) < rng.choice([0, 0.2, 0.99], rows)] = -np.inf
    impossible = (logits == -np.inf).all(axis=1)
    logits[impossible, 0] = 0
    return logits
