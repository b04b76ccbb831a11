"""The contract of models and of their decoders."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError
from textgen.generation.sampling.draw import to_numpy
from textgen.protocols import Ids, Tensors
from textgen.testing.outcomes import Skip, Violation, shown
from textgen.testing.partners import DESCENT
from textgen.testing.process import KEPT_BYTES, check_memory, in_threads, seeds
from textgen.testing.training import TrainingSuite, differing, is_torch_module, written_and_read

__tracebackhide__ = True  # pytest shows the test and the code of the component

_EXAMPLES: Final = 10
_MANY_ROWS: Final = 33  # rows of a large batch
_LONG_TOKENS: Final = 1600  # tokens of a long text
_FEWEST_TOKENS: Final = 200  # of it, for a slow model
_LONG_SECONDS: Final = 0.5  # that it may take to feed it once
_PIECE: Final = 50  # in which it is fed
_LONG_TOLERANCE: Final = 10  # times the tolerance that logits of a long text may differ
_THREADS: Final = 4  # threads with a decoder each
_THREAD_STEPS, _FEW_STEPS = 200, 20  # steps of each of them, at most and at least
_THREAD_SECONDS: Final = 0.25  # that those of one may take alone
_SCORED_TIMES: Final = 5  # times that each of them computes the scores of a text
_MEMORY_CALLS, _MEMORY_TOKENS = 2000, 20  # tokens in all, and of a decoder
_FORWARD: Final = ((3, 16, 1), (3, 80, 1))
"""Rows and tokens for which forward() and the decoder are compared, beside a long text, and how
many times the tolerance logits may differ.
"""
Logits = npt.NDArray[np.floating[Any]]


@attrs.frozen(kw_only=True)
class ModelSuite(TrainingSuite):
    """The checks of a model, trained by the first trainer that takes it.

    Those of decoders are made of the trained model, and of one that took over its weights to
    generate.
    """

    @cached_property
    def trained(self) -> Any:
        for table in self.tables("trainer", DESCENT):
            assert table is not None
            trainer = self.other("trainer", table, tokenizer=self.tokenizer)
            with contextlib.suppress(TextgenError):
                return self.train(trainer, self.new()).model
        return self.new()

    @cached_property
    def loaded(self) -> Any:
        """The model as the engine makes it from a run directory, to generate."""
        model, tensors = self.new(training=False), self.trained.tensors()
        for name, array in tensors.items():
            if not isinstance(array, np.ndarray):
                raise Violation(f"tensors() gave {type(array).__name__} for {name}", "model-saved")
        model.load_tensors(written_and_read(tensors))
        return model

    @cached_property
    def long_tokens(self) -> int:
        """The number of tokens of a long text: fewer where the model takes long for them."""
        decoder = self.loaded.decoder(1)
        decoder.extend(self.tokens(1, _FEWEST_TOKENS))
        begun = time.perf_counter()
        decoder.extend(self.tokens(1, _PIECE))
        affordable = _LONG_SECONDS * _PIECE / max(time.perf_counter() - begun, 1e-6)
        return max(_FEWEST_TOKENS, min(_LONG_TOKENS, int(affordable)))

    def model_seed(self) -> None:
        with seeds() as ours:
            first = self.new().tensors()
        if name := differing(self.new().tensors(), first):
            raise Violation(f"{name} of a second model of the same seed differs")
        with seeds() as theirs:
            other = self.new(seed=1).tensors()
        if ours and ours == theirs and not differing(first, other):
            raise Violation("another seed gave the same weights, drawn by the same generators")

    def model_logits(self) -> None:
        """Every batch size and length, with no tokens too, which are read-only."""
        for model in (self.trained, self.loaded):
            for batch in (1, 2, 5):
                decoder = model.decoder(batch)
                for name, length in (("extend", 0), ("extend", 3), ("score", 4), ("extend", 1)):
                    fed = self.tokens(batch, length)
                    fed.setflags(write=False)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", UserWarning)  # torch's, of such arrays
                        given = getattr(decoder, name)(fed)
                    what = f"{name}() of tokens {fed.shape}"
                    positions = (length,) if name == "score" else ()
                    if (
                        not isinstance(given, np.ndarray)  # the context says "cpu"
                        or given.shape != (batch, *positions, self.tokenizer.vocab_size)
                        or given.dtype not in (np.float32, np.float64)
                    ):
                        raise Violation(f"{what} gave {shown(given)}")
                    best = given.max(axis=-1)  # NaN if there is one
                    if not np.isfinite(best).all():
                        raise Violation(f"{what} gave NaN or +inf, or left no token possible")

    def model_rows(self) -> None:
        """The same rows, whichever way they are fed."""
        examples = [self.tokens(batch, 10, batch) for batch in range(1, _EXAMPLES)]
        for model in (self.trained, self.loaded):
            for fed in (*examples[:4], self.tokens(_MANY_ROWS, 6)):
                self._same(model, fed, fed.shape[1] // 2, 1)
            long = self.tokens(1, self.long_tokens)
            self._same(model, long, self.long_tokens - _PIECE, _LONG_TOLERANCE)

    def _same(self, model: Any, fed: Ids, split: int, slack: int) -> None:
        """Compare what follows after the same tokens, up to `split`, were fed in all ways."""
        expected = _scored(model, fed)
        decoders = [*_ways(model, fed, split)]  # all are there at once, and may not disturb others
        for what, rows, decoder in decoders:
            if decoder.batch_size != len(rows):
                raise Violation(f"{what}: batch_size is {decoder.batch_size}, not {len(rows)}")
            for end in (split, *range(split, fed.shape[1] + 1)):
                begin = max(split, end - 1)
                given = to_numpy(decoder.extend(fed[rows, begin:end]))
                wanted = expected[rows, end - 1]
                if apart := difference(given, wanted, slack * self.tolerance):
                    raise Violation(f"{what}, extend() at token {end} gave {apart}")
                given[...] = -7  # the caller's to write into

    def model_decoders(self) -> None:
        """Decoders in threads, of whole texts and token by token."""
        for model in (self.trained, self.loaded):
            length = self._affordable_steps(model)
            fed = [self.tokens(2, length, seed) for seed in range(_THREADS)]
            alone = [[*_step_by_step(model, tokens)] for tokens in fed]
            in_threads(partial(self._same_again, model), fed, alone)

    def _affordable_steps(self, model: Any) -> int:
        """The number of steps that a decoder takes in the time that a check in threads may cost."""
        decoder, begun = model.decoder(2), time.perf_counter()
        for step in range(_THREAD_STEPS):
            decoder.extend(self.tokens(2, 1))
            if step >= _FEW_STEPS and time.perf_counter() - begun > _THREAD_SECONDS:
                return step
        return _THREAD_STEPS

    def _same_again(self, model: Any, fed: Ids, expected: Sequence[Logits]) -> None:
        for given, wanted in zip(_step_by_step(model, fed), expected, strict=True):
            if apart := difference(given, wanted, self.tolerance):
                raise Violation(f"with other threads at work, a decoder gave {apart}")

    def model_memory(self) -> None:
        """Memory after many decoders, and of one whose state does not grow."""
        fed, model = self.tokens(1, _MEMORY_TOKENS), self.new(training=False)
        model.load_tensors(self.trained.tensors())

        def call(number: int) -> None:
            decoder = model.decoder(1)
            for position in range(_MEMORY_TOKENS):
                decoder.extend(fed[:, position : position + 1])

        check_memory(call, _MEMORY_CALLS // _MEMORY_TOKENS, KEPT_BYTES * _MEMORY_TOKENS)
        decoder = model.decoder(1)
        decoder.extend(fed[:, :1])
        before = {name: array.shape for name, array in decoder.read_state().items()}
        decoder.extend(fed)
        if before == {name: array.shape for name, array in decoder.read_state().items()}:
            check_memory(lambda number: decoder.extend(fed[:, :1]), _MEMORY_CALLS, KEPT_BYTES)

    def model_saved(self) -> None:
        tensors, fed = self.trained.tensors(), self.tokens(2, 12)
        expected = _scored(self.trained, fed)
        for training in (True, False):
            model = self.new(training=training, seed=1)
            with contextlib.suppress(*FAILURES):  # it may not decode before it is trained
                model.decoder(2).score(fed)
            model.load_tensors(written_and_read(tensors))
            what = f"a model built with training={training} and loaded"
            if apart := difference(_scored(model, fed), expected, self.tolerance):
                raise Violation(f"{what} gives {apart}")
            if name := differing(model.tensors(), tensors) or differing(tensors, model.tensors()):
                raise Violation(f"{name} of {what} came back changed")

    def model_refuses(self) -> None:
        tensors = self.trained.tensors()
        if not tensors:
            raise Skip("it has no weights")
        name = max(tensors, key=lambda n: tensors[n].size)
        without = {n: array for n, array in tensors.items() if n != name}
        wrong: dict[str, Tensors] = {
            f"without {name}": without,
            f"with {name} of another shape": {**tensors, name: tensors[name][None]},
            f"with {name} called another": {**without, "another": tensors[name]},
        }
        for what, given in wrong.items():
            try:
                self.new(training=False).load_tensors(given)
            except ValueError as error:
                if str(error):
                    continue
            raise Violation(f"weights {what} were taken, or refused without a word")

    def model_forward(self) -> None:
        torch = self._torch()
        with torch.no_grad():
            self._forward(self.new().eval(), self.tokens(3, 12))
            model = self.trained.eval()
            for rows, length, slack in (*_FORWARD, (1, self.long_tokens, _LONG_TOLERANCE)):
                fed = self.tokens(rows, length)
                try:
                    whole, _ = self._forward(model, fed)
                except TextgenError:  # they are more than its context
                    continue
                first, state = self._forward(model, fed[:, :5])
                rest, _ = model(torch.from_numpy(fed[:, 5:12]), state)
                resumed = torch.cat([first, rest], dim=1).numpy()
                if apart := difference(resumed, whole[:, :12].numpy(), self.tolerance):
                    raise Violation(f"going on from a state after 5 tokens gave {apart}")
                for which, other in (("its own", model), ("the loaded", self.loaded)):
                    scored = _scored(other, fed)
                    if apart := difference(scored, whole.numpy(), slack * self.tolerance):
                        raise Violation(f"score() of {which} decoder gave {apart}")

    def _forward(self, model: Any, fed: Ids) -> tuple[Any, Any]:
        """The logits (B, T, V) and the state of forward()."""
        import torch

        from textgen.gradient.decoder import check_forward

        try:
            logits, state = check_forward(model(torch.from_numpy(fed)), len(fed))
        except (TypeError, ValueError) as error:
            raise Violation(str(error)) from error
        if logits.shape != (*fed.shape, self.tokenizer.vocab_size):
            raise Violation(f"forward() of tokens {fed.shape} gave logits {shown(logits)}")
        return logits, state

    def model_dropout(self) -> None:
        torch, model = self._torch(), self.trained
        fed = torch.from_numpy(self.tokens(2, 12))
        results: list[Any] = []
        model.train()
        with torch.random.fork_rng(devices=[]):
            for other in range(2):
                torch.manual_seed(other)  # not to be drawn from by a model that has its own
                getattr(model, "set_dropout_seed", torch.manual_seed)(3)
                results.append(model(fed)[0].detach().numpy())
        model.eval()
        if not np.array_equal(results[0], results[1], equal_nan=True):
            raise Violation("with the same dropout seed, a second training step gave other logits")

    def _torch(self) -> Any:
        if not is_torch_module(self.new()):
            raise Skip("it is not a torch module")
        import torch

        return torch


def _ways(model: Any, fed: Ids, split: int) -> Iterator[tuple[str, Sequence[int], Any]]:
    """All ways to feed the tokens before `split`: what was done, the rows, and their decoder."""
    every = [*range(len(fed))]

    def after(rows: Sequence[int], *ends: int) -> Any:
        decoder = model.decoder(len(rows))
        for begin, end in zip((0, *ends), (*ends, split), strict=True):
            decoder.extend(fed[rows, begin:end])
        return decoder

    yield "fed at once", every, after(every)
    yield "fed in pieces", every, after(every, *range(0, split, _PIECE))
    yield "fed one by one", every, after(every, *range(min(split, _PIECE)))
    scoring = model.decoder(len(fed))
    scoring.score(fed[:, :split])
    yield "after score()", every, scoring
    for row in every if len(fed) > 1 else ():
        yield f"row {row} of {len(fed)} alone", [row], after([row])
    rows, source = [every[-1], 0, every[-1]], after(every)
    state = source.read_state()
    for name, array in state.items():
        if not isinstance(array, np.ndarray) or len(array) != len(fed):
            raise Violation(f"{name} of the state of a batch of {len(fed)} is {shown(array)}")
    source.extend(fed[:, split : split + 1])  # which the state knows nothing of
    forked = model.decoder(1)
    forked.write_state(written_and_read({name: array[rows] for name, array in state.items()}))
    yield f"with rows {rows} of a state", rows, forked
    if callable(getattr(source, "take", None)):
        joined = after(every)
        joined.join(after([0]))
        yield "after take()", rows, joined.take(rows)
        yield "after take()", [*every, 0], joined.take(range(len(fed) + 1))
        yield "after join()", [*every, 0], joined


def _scored(model: Any, fed: Ids) -> Logits:
    """The logits (B, T, V) that score() of a new decoder gives."""
    return to_numpy(model.decoder(len(fed)).score(fed)).copy()


def _step_by_step(model: Any, fed: Ids) -> Iterator[Logits]:
    """The logits of the first tokens by score(), several times, and those after each token by
    extend().
    """
    for _ in range(_SCORED_TIMES):
        yield _scored(model, fed[:, :_FEW_STEPS])
    decoder = model.decoder(len(fed))
    for position in range(fed.shape[1]):
        yield to_numpy(decoder.extend(fed[:, position : position + 1])).copy()


def difference(given: Logits, expected: Logits, tolerance: float) -> str:
    """The difference of logits, in words; nothing where they are close, relative to the largest."""
    if given.shape != expected.shape:
        return f"logits of shape {given.shape}, not {expected.shape}"
    if given.dtype not in (np.float32, np.float64):
        return f"logits of dtype {given.dtype}"
    known = np.isfinite(expected)
    if not np.array_equal(np.isfinite(given), known):
        return "other tokens that are impossible"
    apart = float(np.abs(given[known].astype(np.float64) - expected[known]).max(initial=0.0))
    if apart <= tolerance * float(np.abs(expected[known]).max(initial=1.0)):
        return ""
    return f"logits that differ by up to {apart:.3g}"
