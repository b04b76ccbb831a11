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
from textgen.testing.examples import for_all, in_threads
from textgen.testing.outcomes import Violation, shown

__tracebackhide__ = True  # what pytest shows is the test, and the code of the component

_EXAMPLES: Final = 10
_LONG: Final = 1100  # tokens of a long text
_PIECE: Final = 50  # in which it is fed


@attrs.frozen
class DecoderSuite:
    """The checks of the decoders of one model. `which` says how it came about."""

    model: Any
    vocab_size: int
    tolerance: float
    which: str

    def shape(self) -> None:
        """Shapes for every batch size and length, the start state and no tokens included."""
        for batch in (1, 2, 5):
            decoder = self.model.decoder(batch)
            if decoder.batch_size != batch:
                self.fail(f"decoder({batch}).batch_size is {decoder.batch_size}")
            for length in (0, 1, 3, 0):
                given = decoder.extend(self.tokens(batch, length))
                if getattr(given, "shape", None) != (batch, self.vocab_size):
                    self.fail(f"extend() of tokens ({batch}, {length}) gave {shown(given)}")
            for length in (1, 4):
                given = decoder.score(self.tokens(batch, length))
                if getattr(given, "shape", None) != (batch, length, self.vocab_size):
                    self.fail(f"score() of tokens ({batch}, {length}) gave {shown(given)}")

    def plain_call(self) -> None:
        """Tokens fed and scored."""
        decoder = self.model.decoder(2)
        decoder.extend(self.tokens(2, 3))
        decoder.score(self.tokens(2, 3))

    def dtype(self) -> None:
        """float32 or float64."""
        decoder = self.model.decoder(2)
        for name, given in (
            ("extend", decoder.extend(self.tokens(2, 0))),
            ("extend", decoder.extend(self.tokens(2, 3))),
            ("score", decoder.score(self.tokens(2, 3))),
        ):
            dtype = str(getattr(given, "dtype", type(given).__name__)).removeprefix("torch.")
            if dtype not in ("float32", "float64"):
                self.fail(f"{name}() gave {dtype}")
            if not isinstance(given, np.ndarray):  # the context says "cpu"
                self.fail(f"{name}() gave a {type(given).__name__} on a CPU, not a NumPy array")

    def finite(self) -> None:
        """No NaN or +inf, and something possible, at the start and after tokens, extreme ones too."""
        self.finite_after(np.zeros((1, 40), np.int64))
        self.finite_after(np.full((1, 40), self.vocab_size - 1))
        self.each(self.finite_after)

    def finite_after(self, fed: Ids) -> None:
        """The same after these tokens."""
        start = to_numpy(self.model.decoder(len(fed)).extend(fed[:, :0]))[:, None].copy()
        given = np.concatenate([start, self.scored(fed)], axis=1)
        if np.isnan(given).any():
            self.fail(f"NaN after {fed[0].tolist()[:8]}")
        if (given == np.inf).any():
            self.fail(f"+inf after {fed[0].tolist()[:8]}")
        if (given == -np.inf).all(axis=-1).any():
            self.fail("every token is impossible")

    def input(self) -> None:
        """Read-only tokens, and tokens left as they were."""
        for name in ("extend", "score"):
            fed = self.tokens(2, 4)
            given = fed.copy()
            getattr(self.model.decoder(2), name)(given)
            if not np.array_equal(given, fed):
                self.fail(f"{name}() changed the tokens it was fed")
            given.setflags(write=False)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter(
                        "ignore", UserWarning
                    )  # torch's, of arrays that it could write into
                    getattr(self.model.decoder(2), name)(given)
            except ValueError as error:
                self.fail(f"{name}() of read-only tokens raised ValueError: {error}")

    def deterministic(self, fed: Ids) -> None:
        """The same each time, to the bit."""
        for name in ("score", "extend"):
            first, second = (
                to_numpy(getattr(self.model.decoder(len(fed)), name)(fed)).copy() for _ in range(2)
            )
            if not np.array_equal(first, second, equal_nan=True):
                self.fail(f"{name}() of a second decoder gave {difference(second, first, 0)}")

    def output(self) -> None:
        """Logits that the caller has overwritten."""
        fed = self.tokens(2, 6)
        spoilt, expected = self.model.decoder(2), self.scored(fed)
        for place in range(5):
            for tokens in (fed[:, place : place + 1], fed[:, :0]):
                logits = spoilt.extend(tokens)
                self.same(
                    logits,
                    expected[:, place],
                    "after the caller wrote into the last logits, extend()",
                )
                try:
                    logits[...] = -7.0
                except (RuntimeError, ValueError, TypeError) as error:
                    self.fail(f"the logits cannot be written into: {error}")

    def stepwise(self, fed: Ids, places: list[int]) -> None:
        """At once, one by one, in pieces, and scored."""
        expected, length = self.scored(fed), fed.shape[1]
        whole = self.model.decoder(len(fed)).extend(fed)
        self.same(whole, expected[:, -1], f"extend() of all {length} tokens", " than score()")
        if place := length // 2:
            decoder = self.model.decoder(len(fed))
            decoder.score(fed[:, :place])
            what = f"after score() of {place} tokens, extend() of those that follow"
            self.same(decoder.extend(fed[:, place:]), expected[:, -1], what)
        for bounds in (
            range(1, length + 1),
            [*(place for place in places if place <= length), length],
        ):
            decoder, begin = self.model.decoder(len(fed)), 0
            for end in bounds:
                given = decoder.extend(fed[:, begin:end])
                if end:
                    what = f"extend() from token {begin} to {end}"
                    self.same(given, expected[:, end - 1], what, " than score()")
                begin = end

    def greedy(self, fed: Ids, never: int) -> None:
        """Tokens that a decoder chooses by itself, if it offers to, and where it stands afterwards."""
        given, steps = self.model.decoder(len(fed)), self.model.decoder(len(fed))
        if getattr(given, "continue_greedily", None) is None:
            return
        forbidden = [never] if self.vocab_size > 1 else []
        for decoder in (given, steps):
            decoder.extend(fed[:, :-1])
        ids = np.asarray(given.continue_greedily(fed[:, -1].copy(), 6, forbidden))
        if ids.ndim != 2 or len(ids) != len(fed) or ids.shape[1] > 6 or ids.dtype.kind not in "iu":
            self.fail(
                f"asked for 6 tokens for each of {len(fed)}, continue_greedily() gave {ids.dtype} {ids.shape}"
            )
        last = fed[:, -1:]
        for place, chosen in enumerate(ids.T):
            logits = to_numpy(steps.extend(last)).copy()
            logits[:, forbidden] = -np.inf
            best = logits.max(axis=-1)
            picked = logits[np.arange(len(fed)), chosen]
            if (picked < best - self.tolerance * np.maximum(1.0, np.abs(best))).any():
                self.fail(
                    f"token {place + 1} of continue_greedily() is not the likeliest of those allowed"
                )
            last = chosen[:, None]
        after, expected = to_numpy(given.extend(last)).copy(), to_numpy(steps.extend(last))
        self.same(after, expected, f"after {ids.shape[1]} tokens of continue_greedily(), extend()")

    def rows(self, fed: Ids) -> None:
        """A row alone and in the batch."""
        for name in (
            "score",
            "extend",
        ):  # a decoder at a time: whether they disturb each other is asked later
            together = to_numpy(getattr(self.model.decoder(len(fed)), name)(fed)).copy()
            for row in range(len(fed)):
                alone = to_numpy(getattr(self.model.decoder(1), name)(fed[row : row + 1]))
                self.same(
                    together[row],
                    alone[0],
                    f"row {row} of {len(fed)}: {name}()",
                    " than it gives alone",
                )

    def state_form(self) -> None:
        """Arrays with the batch first, that a file can hold."""
        for fed in (0, 4):
            decoder = self.model.decoder(3)
            decoder.extend(self.tokens(3, fed))
            state = decoder.read_state()
            if not state:
                self.fail("the state is empty, so that it cannot say how many rows there are")
            for name, array in state.items():
                if not isinstance(array, np.ndarray) or not array.ndim or len(array) != 3:
                    what = (
                        str(array.shape) if isinstance(array, np.ndarray) else type(array).__name__
                    )
                    self.fail(f"{name} of a batch of 3 is {what}")
            dump_tensors(state)

    def state(self, fed: Ids, place: int) -> None:
        """Goes on in a new decoder."""
        place = min(place, fed.shape[1] - 1)
        expected = self.scored(fed)
        decoder, other = self.model.decoder(len(fed)), self.model.decoder(len(fed))
        other.extend(self.tokens(len(fed), 3))
        decoder.extend(fed[:, :place])
        other.write_state(decoder.read_state())
        if place:
            resumed = other.extend(fed[:, :0])
            self.same(resumed, expected[:, place - 1], "after write_state(), extend() of no tokens")
        what = f"after {place} tokens, a decoder that took the state over"
        self.same(other.score(fed[:, place:]), expected[:, place:], what)

    def state_rows(self) -> None:
        """Rows picked, repeated and dropped."""
        fed = self.tokens(3, 8)
        expected = self.scored(fed)
        for picked in ([2, 0, 2, 1], [1], [0, 1, 2]):
            decoder = self.model.decoder(3)
            decoder.extend(fed[:, :4])
            decoder.write_state(
                {name: array[picked] for name, array in decoder.read_state().items()}
            )
            if decoder.batch_size != len(picked):
                self.fail(
                    f"after a state of {len(picked)} rows was written, batch_size is {decoder.batch_size}"
                )
            self.same(
                decoder.score(fed[picked, 4:]), expected[picked, 4:], f"rows {picked} of a state"
            )

    def state_copy(self) -> None:
        """Decoding leaves states alone that were read or written."""
        fed = self.tokens(2, 6)
        decoder = self.model.decoder(2)
        decoder.extend(fed[:, :3])
        state = decoder.read_state()
        kept = {name: array.copy() for name, array in state.items()}
        for what in ("read", "written"):
            decoder.extend(fed[:, 3:])
            if changed := [
                name
                for name in state
                if not np.array_equal(state[name], kept[name], equal_nan=True)
            ]:
                self.fail(f"decoding on changed {changed[0]} of a state that had been {what}")
            decoder.write_state(state)

    def apart(self) -> None:
        """Decoders in turn, and in threads."""
        fed = [self.tokens(2, 8, seed=i) for i in range(4)]
        alone = [self.scored(tokens) for tokens in fed]
        decoders = [self.model.decoder(2) for _ in fed]
        for place in range(8):
            for index, decoder in enumerate(decoders):
                given = decoder.extend(fed[index][:, place : place + 1])
                self.same(
                    given,
                    alone[index][:, place],
                    "with other decoders at work between its steps, one",
                )

        def work(index: int) -> None:
            for _ in range(5):
                self.same(
                    self.scored(fed[index]), alone[index], "with other threads at work, a decoder"
                )

        in_threads(work, len(fed))

    def causal(self) -> None:
        """The beginning of a text, with what follows and without."""
        fed = self.tokens(2, 8)
        whole = self.scored(fed)
        for end in (1, 5):
            what, than = (
                f"score() of {end} tokens and those that follow",
                f" than of these {end} alone",
            )
            self.same(whole[:, :end], self.scored(fed[:, :end]), what, than)

    def length(self) -> None:
        """Many tokens: in pieces, the last of them one by one, and at once."""
        fed = self.tokens(1, _LONG)
        bounds = [1, *range(_PIECE, _LONG - _PIECE, _PIECE), *range(_LONG - _PIECE, _LONG + 1)]
        decoder, begin, given = self.model.decoder(1), 0, {}
        for end in bounds:
            given[end] = to_numpy(decoder.extend(fed[:, begin:end])).copy()
            if begin == 0 and np.isnan(given[end]).any():
                return  # no matter of length: model-finite says so
            begin = end
        scored = self.scored(fed)
        for end in bounds:
            if np.isnan(given[end]).any() or np.isnan(scored[:, end - 1]).any():
                self.fail(f"the logits are NaN after {end} tokens")
            self.same(
                scored[:, end - 1],
                given[end],
                f"after {end} tokens score()",
                " than in pieces",
                slack=10,
            )

    def scored(self, fed: Ids) -> npt.NDArray[Any]:
        """The logits (B, T, V) that score() of another decoder gives."""
        return to_numpy(self.model.decoder(len(fed)).score(fed)).copy()

    def same(
        self, given: Array, expected: npt.NDArray[Any], what: str, than: str = "", slack: float = 1
    ) -> None:
        """Raise the Violation where logits are not close: `what` gave others."""
        if apart := difference(to_numpy(given), expected, slack * self.tolerance):
            self.fail(f"{what} gave {apart}{than}")

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
    if not known.any():
        return ""
    apart = float(np.abs(given[known].astype(np.float64) - expected[known]).max())
    if apart <= tolerance * max(1.0, float(np.abs(expected[known]).max())):
        return ""
    return f"logits that differ by up to {apart:.3g}"
