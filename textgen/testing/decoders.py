"""The contract of decoders, a part of that of models."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.files.reading import dump_tensors
from textgen.generation.sampling import to_numpy
from textgen.protocols import Array, Ids
from textgen.testing.examples import bounds, generators, in_threads
from textgen.testing.outcomes import Violation, shown
from textgen.testing.training_data import differing
from textgen.testing.watching import later

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 10
_LONG: Final = 1600  # tokens of a long text
_PIECE: Final = 50  # in which it is fed
_MANY: Final = 33  # rows of a large batch


@attrs.frozen
class Decoders:
    """The checks of the decoders of one model. `which` says how it came about."""

    model: Any
    vocab_size: int
    tolerance: float
    which: str

    def shape(self) -> None:
        """Every batch size and length, with no tokens too."""
        for batch in (1, 2, 5):
            decoder = self.model.decoder(batch)
            self._size(decoder, batch, f"decoder({batch})")
            lengths = {"extend": (0, 1, 3, 0), "score": (1, 4)}
            for name, length in ((method, n) for method in lengths for n in lengths[method]):
                given = getattr(decoder, name)(self.tokens(batch, length))
                places = [length] * (name == "score")
                if (
                    not isinstance(given, np.ndarray)  # the context says "cpu"
                    or given.shape != (batch, *places, self.vocab_size)
                    or given.dtype not in (np.float32, np.float64)
                ):
                    self._fail(f"{name}() of tokens ({batch}, {length}) gave {shown(given)}")

    def finite(self) -> None:
        ends = [np.full((1, 40), token) for token in (0, self.vocab_size - 1)]
        for fed in (*ends, *(fed for fed, _ in self._examples())):
            start = to_numpy(self.model.decoder(len(fed)).extend(fed[:, :0]))[:, None].copy()
            given = np.concatenate([start, self._scored(fed)], axis=1)
            if np.isnan(given).any():
                self._fail(f"NaN after {fed[0].tolist()[:8]}")
            if (given == np.inf).any():
                self._fail(f"+inf after {fed[0].tolist()[:8]}")
            if (given == -np.inf).all(axis=-1).any():
                self._fail("every token is impossible")

    def input(self) -> None:
        for name in ("extend", "score"):
            fed = self.tokens(2, 4)
            given = fed.copy()
            given.setflags(write=False)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # torch's, of read-only arrays
                    getattr(self.model.decoder(2), name)(given)
            except ValueError as error:
                self._fail(f"{name}() of read-only tokens raised ValueError: {error}")
            if not np.array_equal(given, fed):
                self._fail(f"{name}() changed the tokens it was fed")

    def deterministic(self) -> None:
        for fed, _ in self._examples():
            for name in ("score", "extend"):
                first = to_numpy(getattr(self.model.decoder(len(fed)), name)(fed)).copy()
                with later():
                    second = to_numpy(getattr(self.model.decoder(len(fed)), name)(fed)).copy()
                if not np.array_equal(first, second, equal_nan=True):
                    self._fail(f"{name}() of a second decoder gave {difference(second, first, 0)}")

    def stepwise(self) -> None:
        """Tokens at once, one by one and in pieces, beside score(); a long text too."""
        long = [*range(0, _LONG - _PIECE, _PIECE), *range(_LONG - _PIECE, _LONG + 1)]
        self._in_pieces(self.tokens(1, _LONG), long, slack=10)
        for fed, rng in self._examples():
            length = fed.shape[1]
            for ends in ([0, length], range(length + 1), bounds(rng, length)):
                self._in_pieces(fed, ends)
            if place := length // 2:
                decoder = self.model.decoder(len(fed))
                decoder.score(fed[:, :place])
                what = f"after score() of {place} tokens"
                self._goes_on(decoder, fed, place, self._scored(fed), what)

    def _in_pieces(self, fed: Ids, ends: Iterable[int], slack: float = 1) -> None:
        """Tokens cut at these places, and the last logits asked for again: the caller has written
        into them.
        """
        expected, decoder, begin = self._scored(fed), self.model.decoder(len(fed)), 0
        for end in ends:
            for tokens in (fed[:, begin:end], fed[:, :0]):
                given = decoder.extend(tokens)
                if end:
                    what = f"extend() from token {begin} to {end}"
                    self._same(given, expected[:, end - 1], f"{what}, beside score(),", slack)
                given[...] = -7
            begin = end

    def greedy(self) -> None:
        """The tokens that a decoder chooses by itself, and where it stands afterwards."""
        for fed, rng in self._examples():
            decoder, never = self.model.decoder(len(fed)), int(rng.integers(self.vocab_size))
            if getattr(decoder, "continue_greedily", None) is None:
                return
            decoder.extend(fed[:, :-1])
            ids = np.asarray(decoder.continue_greedily(fed[:, -1].copy(), 6, [never]))
            whole = np.concatenate([fed, ids], axis=1)
            expected = self._scored(whole)
            logits = expected[:, fed.shape[1] - 1 : -1].copy()
            logits[..., never] = -np.inf
            best = logits.max(axis=-1)
            picked = np.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
            if (picked < best - self.tolerance * np.maximum(1, np.abs(best))).any():
                self._fail("continue_greedily() gave a token that is not the likeliest")
            given = decoder.extend(whole[:, -1:])
            self._same(given, expected[:, -1], "after continue_greedily(), extend()")

    def rows(self) -> None:
        for fed in (*(fed for fed, _ in self._examples()), self.tokens(_MANY, 6)):
            expected = self._scored(fed)
            given = to_numpy(self.model.decoder(len(fed)).extend(fed))
            for row in range(len(fed)):
                alone, decoder = self._scored(fed[[row]])[0], self.model.decoder(1)
                what = f"than it gives alone, row {row} of {len(fed)}"
                self._same(expected[row], alone, f"{what}: score()")
                self._same(given[row], to_numpy(decoder.extend(fed[[row]]))[0], f"{what}: extend()")

    def state_form(self) -> None:
        decoder = self.model.decoder(3)
        for fed in (0, 4):
            decoder.extend(self.tokens(3, fed))
            state = decoder.read_state()
            if not state:
                self._fail("the state is empty, so that it cannot say how many rows there are")
            for name, array in state.items():
                if not isinstance(array, np.ndarray) or len(array) != 3:
                    self._fail(f"{name} of a batch of 3 is {shown(array)}")
            dump_tensors(state)

    def state(self) -> None:
        """A state goes on in a new decoder, its rows picked, repeated and dropped."""
        for fed, rng in self._examples():
            place, count = int(rng.integers(fed.shape[1])), len(fed)
            expected, decoder = self._scored(fed), self.model.decoder(count)
            decoder.extend(fed[:, :place])
            state = decoder.read_state()
            kept = copy.deepcopy(state)
            for rows in ([*range(count)], [count - 1, 0, count - 1], [0]):
                other = self.model.decoder(count)
                other.extend(self.tokens(count, 3))
                other.write_state({name: array[rows] for name, array in state.items()})
                what = f"after rows {rows} of a state were written"
                self._size(other, len(rows), what)
                self._goes_on(other, fed[rows], place, expected[rows], what)
            for what in ("read", "written"):
                decoder.extend(fed[:, place:])
                if name := differing(state, kept):
                    self._fail(f"decoding on changed {name} of a state that had been {what}")
                decoder.write_state(state)

    def take_join(self) -> None:
        """Rows go on as before when they are taken out and joined."""
        for fed, rng in self._examples():
            decoder, place = self.model.decoder(len(fed)), int(rng.integers(fed.shape[1]))
            offered = [name for name in ("take", "join") if callable(getattr(decoder, name, None))]
            if len(offered) == 1:
                self._fail(f"the decoder offers {offered[0]}() alone")
            if not offered:
                return
            texts = [*fed[:, :place], np.tile(fed[0], 2)]
            alone = [self._after(text[None]) for text in texts]
            decoder.extend(fed[:, :place])
            decoder.join(self._after(texts[-1][None]))
            self._size(decoder, len(texts), "after join(), the decoder")
            rows = [len(fed), 0, len(fed)]
            taken = decoder.take(rows)
            self._size(taken, 3, "take() of 3 rows")
            state = decoder.take([0]).read_state()
            for name, array in alone[0].read_state().items():
                if (given := shown(state.get(name))) != shown(array):
                    self._fail(f"after join() and take(), {name} of a row is {given}")
            steps = self.tokens(len(texts), fed.shape[1] - place)
            pairs = zip(alone, steps, strict=True)
            expected = np.concatenate([to_numpy(d.extend(s[None])).copy() for d, s in pairs])
            for logits, wanted, what in (
                (
                    taken.extend(steps[rows]),
                    expected[rows],
                    f"extend() after take() of rows {rows}",
                ),
                (decoder.extend(steps), expected, "extend() after join() and take()"),
            ):
                self._same(logits, wanted, what)
                is_exact = getattr(decoder, "exact_rows", True)
                if is_exact and difference(to_numpy(logits), wanted, 0):
                    self._fail(f"{what} differs in the last bits, though exact_rows is not False")

    def decoders(self) -> None:
        """Decoders that take turns, and decoders in threads."""
        fed = [self.tokens(2, 8, seed=i) for i in range(4)]
        alone = list(map(self._scored, fed))
        decoders = [self.model.decoder(2) for _ in fed]
        for place in range(8):
            for decoder, tokens, expected in zip(decoders, fed, alone, strict=True):
                given = decoder.extend(tokens[:, [place]])
                self._same(given, expected[:, place], "with other decoders at work, one")

        def work(index: int) -> None:
            for _ in range(5):
                what = "with other threads at work, a decoder"
                self._same(self._scored(fed[index]), alone[index], what)

        in_threads(work, len(fed))

    def tokens(self, batch: int, length: int, seed: int = 0) -> Ids:
        """Some tokens (B, T)."""
        return np.random.default_rng(seed).integers(0, self.vocab_size, (batch, length))

    def _examples(self) -> Iterator[tuple[Ids, np.random.Generator]]:
        """Many tokens (B, T), and a source of other choices."""
        for rng in generators(_EXAMPLES):
            shape = rng.integers([1, 1], [4, 11])
            yield rng.integers(0, self.vocab_size, shape), rng

    def _after(self, fed: Ids) -> Any:
        """A decoder that was fed these tokens."""
        decoder = self.model.decoder(len(fed))
        decoder.extend(fed)
        return decoder

    def _scored(self, fed: Ids) -> npt.NDArray[Any]:
        """The logits (B, T, V) that score() of another decoder gives."""
        return to_numpy(self.model.decoder(len(fed)).score(fed)).copy()

    def _goes_on(
        self, decoder: Any, fed: Ids, place: int, expected: npt.NDArray[Any], what: str
    ) -> None:
        """Check a decoder that stands at a place of these tokens."""
        if place:
            here = decoder.extend(fed[:, :0])
            self._same(here, expected[:, place - 1], f"{what}, extend() of no tokens")
        self._same(decoder.score(fed[:, place:]), expected[:, place:], f"{what}, score()")

    def _same(self, given: Array, expected: npt.NDArray[Any], what: str, slack: float = 1) -> None:
        """Raise a Violation where logits are not close: `what` gave others."""
        if apart := difference(to_numpy(given), expected, slack * self.tolerance):
            self._fail(f"{what} gave {apart}")

    def _size(self, decoder: Any, rows: int, what: str) -> None:
        if decoder.batch_size != rows:
            self._fail(f"{what}: batch_size is {decoder.batch_size}, not {rows}")

    def _fail(self, seen: str) -> None:
        raise Violation(f"{seen} (a model {self.which})")


def difference(given: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: float) -> str:
    """How logits differ, in words; nothing where they are close, relative to the largest."""
    if given.shape != expected.shape:
        return f"logits of shape {given.shape}, not {expected.shape}"
    known = np.isfinite(expected)
    if not np.array_equal(np.isfinite(given), known):
        return "other tokens that are impossible"
    apart = float(np.abs(given[known].astype(np.float64) - expected[known]).max(initial=0.0))
    if apart <= tolerance * float(np.abs(expected[known]).max(initial=1.0)):
        return ""
    return f"logits that differ by up to {apart:.3g}"
