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
from textgen.protocols import Ids
from textgen.testing.examples import cuts, for_all, in_threads
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

        def one(fed: Ids) -> None:
            decoder = self.model.decoder(len(fed))
            start = to_numpy(decoder.extend(fed[:, :0]))[:, None].copy()
            given = np.concatenate([start, to_numpy(decoder.score(fed))], axis=1)
            if np.isnan(given).any():
                self.fail(f"NaN after {fed[0].tolist()[:8]}")
            if (given == np.inf).any():
                self.fail(f"+inf after {fed[0].tolist()[:8]}")
            if (given == -np.inf).all(axis=-1).any():
                self.fail("every token is impossible")

        one(np.zeros((1, 40), np.int64))
        one(np.full((1, 40), self.vocab_size - 1))
        self.each(one)

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
                    warnings.simplefilter("ignore", UserWarning)  # torch's, of arrays that it could write into
                    getattr(self.model.decoder(2), name)(given)
            except ValueError as error:
                self.fail(f"{name}() of read-only tokens raised ValueError: {error}")

    def deterministic(self) -> None:
        """The same each time, to the bit."""

        def one(fed: Ids) -> None:
            for name in ("score", "extend"):
                first, second = (to_numpy(getattr(self.model.decoder(len(fed)), name)(fed)).copy() for _ in range(2))
                if not np.array_equal(first, second, equal_nan=True):
                    apart = difference(second, first, 0)
                    self.fail(f"{name}() of a second decoder gave {apart}")

        self.each(one)

    def output(self) -> None:
        """Logits that the caller has overwritten."""
        fed = self.tokens(2, 6)
        spoilt, expected = self.model.decoder(2), to_numpy(self.model.decoder(2).score(fed)).copy()
        for place in range(5):
            for tokens in (fed[:, place : place + 1], fed[:, :0]):
                logits = spoilt.extend(tokens)
                if apart := difference(to_numpy(logits), expected[:, place], self.tolerance):
                    self.fail(f"after the caller wrote into the last logits, extend() gave {apart}")
                try:
                    logits[...] = -7.0
                except (RuntimeError, ValueError, TypeError) as error:
                    self.fail(f"the logits cannot be written into: {error}")

    def stepwise(self) -> None:
        """At once, one by one, in pieces, and scored."""

        def one(fed: Ids, places: list[int]) -> None:
            expected = to_numpy(self.model.decoder(len(fed)).score(fed)).copy()
            whole = to_numpy(self.model.decoder(len(fed)).extend(fed))
            if apart := difference(whole, expected[:, -1], self.tolerance):
                self.fail(f"extend() of all {fed.shape[1]} tokens gave {apart} than score()")
            places = [place for place in places if place <= fed.shape[1]]
            self._goes_on_from_score(fed, expected)
            for bounds in (range(1, fed.shape[1] + 1), [*places, fed.shape[1]]):
                decoder, begin = self.model.decoder(len(fed)), 0
                for end in bounds:
                    given = to_numpy(decoder.extend(fed[:, begin:end]))
                    if end and (apart := difference(given, expected[:, end - 1], self.tolerance)):
                        self.fail(f"extend() from token {begin} to {end} gave {apart} than score()")
                    begin = end

        self.each(one, places=cuts(10))

    def _goes_on_from_score(self, fed: Ids, expected: npt.NDArray[Any]) -> None:
        place = fed.shape[1] // 2
        if not place:
            return
        decoder = self.model.decoder(len(fed))
        decoder.score(fed[:, :place])
        given = to_numpy(decoder.extend(fed[:, place:]))
        if apart := difference(given, expected[:, -1], self.tolerance):
            self.fail(f"after score() of {place} tokens, extend() of those that follow gave {apart}")

    def greedy(self) -> None:
        """Tokens that a decoder chooses by itself, if it offers to, and where it stands afterwards."""
        follow = getattr(self.model.decoder(1), "continue_greedily", None)
        if follow is None:
            return

        def one(fed: Ids, never: int) -> None:
            forbidden = [never] if self.vocab_size > 1 else []
            given, steps = self.model.decoder(len(fed)), self.model.decoder(len(fed))
            for decoder in (given, steps):
                decoder.extend(fed[:, :-1])
            ids = np.asarray(given.continue_greedily(fed[:, -1].copy(), 6, forbidden))
            if ids.ndim != 2 or len(ids) != len(fed) or ids.shape[1] > 6 or ids.dtype.kind not in "iu":
                seen = f"asked for 6 tokens for each of {len(fed)}, continue_greedily() gave {ids.dtype} {ids.shape}"
                self.fail(seen)
            last = fed[:, -1:]
            for place, chosen in enumerate(ids.T):
                logits = to_numpy(steps.extend(last)).copy()
                logits[:, forbidden] = -np.inf
                best = logits.max(axis=-1)
                picked = logits[np.arange(len(fed)), chosen]
                if (picked < best - self.tolerance * np.maximum(1.0, np.abs(best))).any():
                    self.fail(f"token {place + 1} of continue_greedily() is not the likeliest of those allowed")
                last = chosen[:, None]
            if not ids.shape[1]:
                last = fed[:, -1:]
            after, expected = to_numpy(given.extend(last)).copy(), to_numpy(steps.extend(last))
            if apart := difference(after, expected, self.tolerance):
                self.fail(f"after {ids.shape[1]} tokens of continue_greedily(), extend() gave {apart}")

        self.each(one, never=strategy.integers(0, self.vocab_size - 1))

    def rows(self) -> None:
        """A row alone and in the batch."""

        def one(fed: Ids) -> None:
            for name in ("score", "extend"):  # a decoder at a time: whether they disturb each other is asked later
                together = to_numpy(getattr(self.model.decoder(len(fed)), name)(fed)).copy()
                for row in range(len(fed)):
                    alone = to_numpy(getattr(self.model.decoder(1), name)(fed[row : row + 1]))
                    if apart := difference(together[row], alone[0], self.tolerance):
                        self.fail(f"row {row} of {len(fed)}: {name}() gave {apart} than it gives alone")

        self.each(one)

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
                    what = str(array.shape) if isinstance(array, np.ndarray) else type(array).__name__
                    self.fail(f"{name} of a batch of 3 is {what}")
            dump_tensors(state)

    def state(self) -> None:
        """Goes on in a new decoder."""

        def one(fed: Ids, place: int) -> None:
            place = min(place, fed.shape[1] - 1)
            expected = to_numpy(self.model.decoder(len(fed)).score(fed)).copy()
            decoder, other = self.model.decoder(len(fed)), self.model.decoder(len(fed))
            other.extend(self.tokens(len(fed), 3))
            decoder.extend(fed[:, :place])
            other.write_state(decoder.read_state())
            if place:
                resumed = to_numpy(other.extend(fed[:, :0])).copy()
                if apart := difference(resumed, expected[:, place - 1], self.tolerance):
                    self.fail(f"after write_state(), extend() of no tokens gave {apart}")
            rest = to_numpy(other.score(fed[:, place:]))
            if apart := difference(rest, expected[:, place:], self.tolerance):
                self.fail(f"after {place} tokens, a decoder that took the state over gave {apart}")

        self.each(one, place=strategy.integers(0, 9))

    def state_rows(self) -> None:
        """Rows picked, repeated and dropped."""
        fed = self.tokens(3, 8)
        expected = to_numpy(self.model.decoder(3).score(fed)).copy()
        for picked in ([2, 0, 2, 1], [1], [0, 1, 2]):
            decoder = self.model.decoder(3)
            decoder.extend(fed[:, :4])
            decoder.write_state({name: array[picked] for name, array in decoder.read_state().items()})
            if decoder.batch_size != len(picked):
                self.fail(f"after a state of {len(picked)} rows was written, batch_size is {decoder.batch_size}")
            given = to_numpy(decoder.score(fed[picked, 4:]))
            if apart := difference(given, expected[picked, 4:], self.tolerance):
                self.fail(f"rows {picked} of a state gave {apart}")

    def state_copy(self) -> None:
        """Decoding leaves states alone that were read or written."""
        fed = self.tokens(2, 6)
        decoder = self.model.decoder(2)
        decoder.extend(fed[:, :3])
        state = decoder.read_state()
        kept = {name: array.copy() for name, array in state.items()}
        for what in ("read", "written"):
            decoder.extend(fed[:, 3:])
            if changed := [name for name in state if not np.array_equal(state[name], kept[name], equal_nan=True)]:
                self.fail(f"decoding on changed {changed[0]} of a state that had been {what}")
            decoder.write_state(state)

    def apart(self) -> None:
        """Decoders in turn, and in threads."""
        fed = [self.tokens(2, 8, seed=i) for i in range(4)]
        alone = [to_numpy(self.model.decoder(2).score(tokens)).copy() for tokens in fed]
        decoders = [self.model.decoder(2) for _ in fed]
        for place in range(8):
            for index, decoder in enumerate(decoders):
                given = to_numpy(decoder.extend(fed[index][:, place : place + 1]))
                if apart := difference(given, alone[index][:, place], self.tolerance):
                    self.fail(f"with other decoders at work between its steps, one gave {apart}")

        def work(index: int) -> str:
            for _ in range(5):
                given = to_numpy(self.model.decoder(2).score(fed[index]))
                if apart := difference(given, alone[index], self.tolerance):
                    return apart
            return ""

        if apart := next(filter(None, in_threads(work, len(fed))), ""):
            self.fail(f"with other threads at work, a decoder gave {apart}")

    def causal(self) -> None:
        """The beginning of a text, with what follows and without."""
        fed = self.tokens(2, 8)
        whole = to_numpy(self.model.decoder(2).score(fed)).copy()
        for end in (1, 5):
            part = to_numpy(self.model.decoder(2).score(fed[:, :end]))
            if apart := difference(whole[:, :end], part, self.tolerance):
                self.fail(f"score() of {end} tokens and those that follow gave {apart} than of these {end} alone")

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
        scored = to_numpy(self.model.decoder(1).score(fed))
        for end in bounds:
            if np.isnan(given[end]).any() or np.isnan(scored[:, end - 1]).any():
                self.fail(f"the logits are NaN after {end} tokens")
            if apart := difference(scored[:, end - 1], given[end], 10 * self.tolerance):
                self.fail(f"after {end} tokens score() gave {apart} than in pieces")

    def fail(self, seen: str) -> None:
        """Raise the Violation."""
        raise Violation(f"{seen} (a model {self.which})")

    def each(self, check: Callable[..., None], **more: Any) -> None:
        """Make a check with many tokens `fed` (B, T)."""
        shape = strategy.tuples(strategy.integers(1, 3), strategy.integers(1, 10))
        ids = strategy.lists(strategy.integers(0, self.vocab_size - 1), min_size=1, max_size=30)
        fed = strategy.builds(lambda ids, shape: np.resize(np.array(ids, np.int64), shape), ids, shape)
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
