"""The contract of decoders, which a model's suite holds its decoders to."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as strategy

from textgen.files.reading import dump_tensors
from textgen.generation.sampling import to_numpy
from textgen.protocols import Array, Ids
from textgen.testing.examples import cuts, for_all, in_threads
from textgen.testing.outcomes import Violation, shown

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 10
_LONG: Final = 1100  # tokens of a long text
_PIECE: Final = 50  # in which it is fed


@attrs.frozen
class Decoders:
    """The checks of the decoders of one model. `which` says how it came about."""

    model: Any
    vocab_size: int
    tolerance: float
    which: str

    def shape(self) -> None:
        """Check shapes for every batch size and length, with no tokens too."""
        for batch in (1, 2, 5):
            decoder = self.model.decoder(batch)
            self.size(decoder, batch, f"decoder({batch})")
            for length in (0, 1, 3, 0):
                given = decoder.extend(self.tokens(batch, length))
                if getattr(given, "shape", None) != (batch, self.vocab_size):
                    self.fail(f"extend() of tokens ({batch}, {length}) gave {shown(given)}")
            for length in (1, 4):
                given = decoder.score(self.tokens(batch, length))
                if getattr(given, "shape", None) != (batch, length, self.vocab_size):
                    self.fail(f"score() of tokens ({batch}, {length}) gave {shown(given)}")

    def dtype(self) -> None:
        """Check that logits are NumPy arrays of float32 or float64."""
        for name in ("extend", "score"):
            given = getattr(self.model.decoder(2), name)(self.tokens(2, 3))
            if not isinstance(given, np.ndarray):  # the context says "cpu"
                self.fail(f"{name}() gave a {type(given).__name__} on a CPU, not a NumPy array")
            if given.dtype not in (np.float32, np.float64):
                self.fail(f"{name}() gave {given.dtype}")

    def finite(self) -> None:
        """Check for NaN, for +inf and for rows where nothing is possible."""
        self._finite_after(np.zeros((1, 40), np.int64))
        self._finite_after(np.full((1, 40), self.vocab_size - 1))
        self.each(self._finite_after)

    def _finite_after(self, fed: Ids) -> None:
        start = to_numpy(self.model.decoder(len(fed)).extend(fed[:, :0]))[:, None].copy()
        given = np.concatenate([start, self.scored(fed)], axis=1)
        if np.isnan(given).any():
            self.fail(f"NaN after {fed[0].tolist()[:8]}")
        if (given == np.inf).any():
            self.fail(f"+inf after {fed[0].tolist()[:8]}")
        if (given == -np.inf).all(axis=-1).any():
            self.fail("every token is impossible")

    def input(self) -> None:
        """Check that read-only tokens are taken and left as they were."""
        for name in ("extend", "score"):
            fed = self.tokens(2, 4)
            given = fed.copy()
            given.setflags(write=False)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # torch's, of read-only arrays
                    getattr(self.model.decoder(2), name)(given)
            except ValueError as error:
                self.fail(f"{name}() of read-only tokens raised ValueError: {error}")
            if not np.array_equal(given, fed):
                self.fail(f"{name}() changed the tokens it was fed")

    def deterministic(self, fed: Ids) -> None:
        """Check that a second decoder gives the same to the bit."""
        for name in ("score", "extend"):
            first, second = (
                to_numpy(getattr(self.model.decoder(len(fed)), name)(fed)).copy() for _ in range(2)
            )
            if not np.array_equal(first, second, equal_nan=True):
                self.fail(f"{name}() of a second decoder gave {difference(second, first, 0)}")

    def output(self) -> None:
        """Check logits after the caller has overwritten the last ones."""
        fed = self.tokens(2, 6)
        spoilt, expected = self.model.decoder(2), self.scored(fed)
        for place in range(5):
            for tokens in (fed[:, place : place + 1], fed[:, :0]):
                logits = spoilt.extend(tokens)
                what = "after the caller wrote into the last logits, extend()"
                self.same(logits, expected[:, place], what)
                logits[...] = -7.0

    def stepwise(self, fed: Ids, places: list[int]) -> None:
        """Check tokens that are fed at once, one by one, in pieces, and scored."""
        expected, length = self.scored(fed), fed.shape[1]
        if place := length // 2:
            decoder = self.model.decoder(len(fed))
            decoder.score(fed[:, :place])
            what = f"after score() of {place} tokens, extend() of the others"
            self.same(decoder.extend(fed[:, place:]), expected[:, -1], what)
        pieces = [*(place for place in places if place <= length), length]
        for bounds in ([length], range(1, length + 1), pieces):
            decoder, begin = self.model.decoder(len(fed)), 0
            for end in bounds:
                given = decoder.extend(fed[:, begin:end])
                if end:
                    what = f"extend() from token {begin} to {end}"
                    self.same(given, expected[:, end - 1], what, " than score()")
                begin = end

    def greedy(self, fed: Ids, never: int) -> None:
        """Check the tokens that a decoder chooses by itself, and where it stands afterwards."""
        given, steps = self.model.decoder(len(fed)), self.model.decoder(len(fed))
        if getattr(given, "continue_greedily", None) is None:
            return
        for decoder in (given, steps):
            decoder.extend(fed[:, :-1])
        ids = np.asarray(given.continue_greedily(fed[:, -1].copy(), 6, [never]))
        last = fed[:, -1:]
        for place, chosen in enumerate(ids.T, 1):
            logits = to_numpy(steps.extend(last)).copy()
            logits[:, never] = -np.inf
            best = logits.max(axis=-1)
            picked = logits[np.arange(len(fed)), chosen]
            if (picked < best - self.tolerance * np.maximum(1.0, np.abs(best))).any():
                self.fail(f"token {place} of continue_greedily() is not the likeliest of those")
            last = chosen[:, None]
        what = f"after {ids.shape[1]} tokens of continue_greedily(), extend()"
        self.same(given.extend(last), to_numpy(steps.extend(last)), what)

    def rows(self, fed: Ids) -> None:
        """Check that a row gives the same alone and in the batch."""
        for name in ("score", "extend"):
            together = to_numpy(getattr(self.model.decoder(len(fed)), name)(fed)).copy()
            for row in range(len(fed)):
                alone = to_numpy(getattr(self.model.decoder(1), name)(fed[row : row + 1]))
                what = f"row {row} of {len(fed)}: {name}()"
                self.same(together[row], alone[0], what, " than it gives alone")

    def state_form(self) -> None:
        """Check that a state has arrays with the batch first, which a file can hold."""
        decoder = self.model.decoder(3)
        for fed in (0, 4):
            decoder.extend(self.tokens(3, fed))
            state = decoder.read_state()
            if not state:
                self.fail("the state is empty, so that it cannot say how many rows there are")
            for name, array in state.items():
                if not isinstance(array, np.ndarray) or len(array) != 3:
                    self.fail(f"{name} of a batch of 3 is {shown(array)}")
            dump_tensors(state)

    def state(self, fed: Ids, place: int) -> None:
        """Check that a state goes on in a new decoder, its rows picked, repeated and dropped."""
        place = min(place, fed.shape[1] - 1)
        expected, decoder = self.scored(fed), self.model.decoder(len(fed))
        decoder.extend(fed[:, :place])
        state = decoder.read_state()
        kept = {name: array.copy() for name, array in state.items()}
        for picked in (list(range(len(fed))), [len(fed) - 1, 0, len(fed) - 1], [0]):
            other = self.model.decoder(len(fed))
            other.extend(self.tokens(len(fed), 3))
            other.write_state({name: array[picked] for name, array in state.items()})
            what = f"after rows {picked} of a state were written"
            self.size(other, len(picked), what)
            if place:
                here = other.extend(fed[picked, :0])
                self.same(here, expected[picked, place - 1], f"{what}, extend() of no tokens")
            self.same(other.score(fed[picked, place:]), expected[picked, place:], what)
        for what in ("read", "written"):
            decoder.extend(fed[:, place:])
            for name in state:
                if not np.array_equal(state[name], kept[name], equal_nan=True):
                    self.fail(f"decoding on changed {name} of a state that had been {what}")
            decoder.write_state(state)

    def take_and_join(self, fed: Ids, place: int) -> None:
        """Check that rows go on as before when they are taken out and joined."""
        decoder = self.model.decoder(len(fed))
        offered = [name for name in ("take", "join") if callable(getattr(decoder, name, None))]
        if len(offered) == 1:
            self.fail(f"the decoder offers {offered[0]}() alone")
        if not offered:
            return
        is_exact = getattr(decoder, "exact_rows", True)
        place = min(place, fed.shape[1] - 1)
        before, after = fed[:, :place], fed[:, place:]
        alone = [self.model.decoder(1) for _ in [*fed, 0]]
        decoder.extend(before)
        for row, single in enumerate(alone[:-1]):
            single.extend(before[row : row + 1])
        longer = np.concatenate([fed[:1], fed[:1]], axis=1)
        other = self.model.decoder(1)
        other.extend(longer)
        alone[-1].extend(longer)
        decoder.join(other)
        self.size(decoder, len(fed) + 1, "after join(), the decoder")
        rows = [len(fed), 0, len(fed)]
        taken = decoder.take(rows)
        self.size(taken, 3, "take() of 3 rows")
        states = decoder.take([0]).read_state(), alone[0].read_state()
        for name in sorted(states[0].keys() | states[1].keys()):
            forms = [shown(state.get(name)) for state in states]
            if forms[0] != forms[1]:
                self.fail(f"after join() and take(), {name} of a row is {forms[0]}, not {forms[1]}")
        steps = np.concatenate([after, after[-1:]])
        expected = np.concatenate(
            [to_numpy(d.extend(steps[i : i + 1])).copy() for i, d in enumerate(alone)]
        )
        for given, ours, what in (
            (taken.extend(steps[rows]), expected[rows], f"extend() after take() of rows {rows}"),
            (decoder.extend(steps), expected, "extend() after join() and take()"),
        ):
            self.same(given, ours, what)
            if is_exact and difference(to_numpy(given), ours, 0):
                self.fail(f"{what} differs in the last bits, though exact_rows is not False")

    def apart(self) -> None:
        """Check decoders that take turns, and decoders in threads."""
        fed = [self.tokens(2, 8, seed=i) for i in range(4)]
        alone = [self.scored(tokens) for tokens in fed]
        decoders = [self.model.decoder(2) for _ in fed]
        what = "with other decoders at work between its steps, one"
        for place in range(8):
            for index, decoder in enumerate(decoders):
                given = decoder.extend(fed[index][:, place : place + 1])
                self.same(given, alone[index][:, place], what)

        def work(index: int) -> None:
            for _ in range(5):
                what = "with other threads at work, a decoder"
                self.same(self.scored(fed[index]), alone[index], what)

        in_threads(work, len(fed))

    def causal(self) -> None:
        """Check the beginning of a text, with what follows and without."""
        fed = self.tokens(2, 8)
        whole = self.scored(fed)
        for end in (1, 5):
            what = f"score() of {end} tokens and those that follow"
            than = f" than of these {end} alone"
            self.same(whole[:, :end], self.scored(fed[:, :end]), what, than)

    def length(self) -> None:
        """Check a long text in pieces, the last of them one by one, and at once."""
        fed, decoder, begin = self.tokens(1, _LONG), self.model.decoder(1), 0
        scored = self.scored(fed)
        for end in [*range(_PIECE, _LONG - _PIECE, _PIECE), *range(_LONG - _PIECE, _LONG + 1)]:
            given, begin = decoder.extend(fed[:, begin:end]), end
            what = f"after {end} tokens score()"
            self.same(scored[:, end - 1], to_numpy(given), what, " than in pieces", slack=10)

    def scored(self, fed: Ids) -> npt.NDArray[Any]:
        """The logits (B, T, V) that score() of another decoder gives."""
        return to_numpy(self.model.decoder(len(fed)).score(fed)).copy()

    def same(
        self, given: Array, expected: npt.NDArray[Any], what: str, than: str = "", slack: float = 1
    ) -> None:
        """Raise a Violation where logits are not close: `what` gave others."""
        if apart := difference(to_numpy(given), expected, slack * self.tolerance):
            self.fail(f"{what} gave {apart}{than}")

    def size(self, decoder: Any, rows: int, what: str) -> None:
        """Raise a Violation where a decoder says another batch size."""
        if decoder.batch_size != rows:
            self.fail(f"{what}: batch_size is {decoder.batch_size}, not {rows}")

    def fail(self, seen: str) -> None:
        """Raise the Violation."""
        raise Violation(f"{seen} (a model {self.which})")

    def each(self, check: Callable[..., None], **more: Any) -> None:
        """Make a check with many tokens `fed` (B, T)."""
        shape = strategy.tuples(strategy.integers(1, 3), strategy.integers(1, 10))
        ids = strategy.lists(strategy.integers(0, self.vocab_size - 1), min_size=1, max_size=30)
        fed = strategy.builds(
            lambda ids, shape: np.resize(np.array(ids, np.int64), shape), ids, shape
        )
        for_all(_EXAMPLES, check, fed=fed, **more)

    def checks(self) -> dict[str, Callable[[], None]]:
        """The checks, by the anchor of their statement."""
        places, token = strategy.integers(0, 9), strategy.integers(0, self.vocab_size - 1)
        return {
            "model-shape": self.shape,
            "model-dtype": self.dtype,
            "model-finite": self.finite,
            "model-input": self.input,
            "model-deterministic": lambda: self.each(self.deterministic),
            "model-causal": self.causal,
            "model-rows": lambda: self.each(self.rows),
            "model-stepwise": lambda: self.each(self.stepwise, places=cuts(10)),
            "model-decoders": self.apart,
            "model-output": self.output,
            "model-greedy": lambda: self.each(self.greedy, never=token),
            "model-state-form": self.state_form,
            "model-state": lambda: self.each(self.state, place=places),
            "model-take-join": lambda: self.each(self.take_and_join, place=places),
            "model-length": self.length,
        }

    def tokens(self, batch: int, length: int, seed: int = 0) -> Ids:
        """Some tokens (B, T)."""
        return np.random.default_rng(seed).integers(0, self.vocab_size, (batch, length))


def difference(given: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: float) -> str:
    """How logits differ, in words; nothing where they are close, relative to the largest."""
    if given.shape != expected.shape:
        return f"logits of shape {given.shape}, not {expected.shape}"
    if not np.array_equal(np.isfinite(given), np.isfinite(expected)):
        return "other tokens that are impossible"
    known = np.isfinite(expected)
    apart = float(np.abs(given[known].astype(np.float64) - expected[known]).max(initial=0.0))
    if apart <= tolerance * float(np.abs(expected[known]).max(initial=1.0)):
        return ""
    return f"logits that differ by up to {apart:.3g}"
