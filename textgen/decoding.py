"""Token ids from a model: one sequence at a time, or a batch whose places are taken again as they fall free.

Works on ids alone; textgen.generation adds the text. Both loops draw through the same chain from the same numbers, and
rows of a decoder, of samplers and of draws are independent, so a sequence is the same in either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from operator import length_hint
from typing import Any, Final, Literal, cast

import attrs
import numpy as np
import numpy.typing as npt

from textgen import contracts
from textgen.errors import UsageError
from textgen.guards import failure
from textgen.protocols import Array, Decoder, GreedyDecoder, Ids, Model, Tensors
from textgen.sampling import BLOCK, Chain, Uniforms, log_softmax, to_numpy, uniform_block
from textgen.state import GenerationState

FinishReason = Literal["length", "stop", "time", "cancelled"]
_HISTORY: Final = "history."
_STATE: Final = "state."
_FIRST_STRETCH, _LONGEST_STRETCH, _STRETCH_SECONDS = 4, 256, 0.01
_STRETCH_TO_STOP: Final = 8  # with stops, what is generated beyond one is thrown away


@attrs.frozen(kw_only=True)
class Limits:
    """When a sequence ends. `max_new_tokens` None is never; `deadline` is a time of time.monotonic."""

    max_new_tokens: int | None
    min_new_tokens: int = 0
    stop_tokens: tuple[int, ...] = ()
    deadline: float | None = None
    cancelled: Callable[[], bool] | None = None

    def out_of_time(self) -> FinishReason | None:
        """Why to end now, if the clock or the caller says so."""
        if self.cancelled is not None and self.cancelled():
            return "cancelled"
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else None

    @property
    def watched(self) -> bool:
        """Whether `out_of_time` has to be asked at all."""
        return self.deadline is not None or self.cancelled is not None


@attrs.frozen
class TokenLogprobs:
    """Log-probabilities of one generated token, by the model before any sampler: its own and the likeliest ones'."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class SequenceDecoding:
    """One sequence. `reason` says why it ended, once it has; `logprobs` is filled if `top` is not None."""

    def __init__(
        self, model: Model, chain: Chain, prompt: Ids, *, seed: int, index: int, state: GenerationState | None = None
    ) -> None:
        self._chain = chain
        self._decoder: Decoder = model.decoder(1)
        self._history = chain.history()
        self._seed, self._index = seed, index
        self.reason: FinishReason = "length"
        self.logprobs: list[TokenLogprobs] = []
        self._ahead: _Ahead | None = None
        if state is None:
            self._uniforms = Uniforms(seed, index)
            self._history.append_row(prompt)
            self._feed = np.asarray(prompt, np.int64)[None]
        else:
            self._restore(state, prompt)

    def tokens(self, limits: Limits, top: int | None = None) -> Iterator[int]:
        """Draw until a limit is reached. Between two of them it can be left for good."""
        chain, history, uniforms, stop = self._chain, self._history, self._uniforms, limits.stop_tokens
        extend, pick, draws, noting = self._decoder.extend, chain.pick_one, chain.draws, history.level != "none"
        expected, fed = (1, chain.vocab_size), np.empty((1, 1), np.int64)
        made, maximum, least, watched = 0, limits.max_new_tokens, limits.min_new_tokens, limits.watched
        checked, feed = False, self._feed
        stretches = Stretches.of(self._decoder, chain) if top is None else None
        while maximum is None or made < maximum:
            if watched and (reason := limits.out_of_time()):
                self.reason = reason
                return
            if stretches is not None and feed is fed and (made >= least or not stop):
                if ahead := self._run_ahead(stretches, None if maximum is None else maximum - made):
                    for token in ahead:
                        yield token
                        if token in stop:
                            self.reason = "stop"
                            return
                    made += ahead.length
                    fed[0, 0] = token
                    self._ahead = None
                    continue
                stretches = None
            try:
                logits = extend(feed)
                checked = checked and logits.shape == expected
            except Exception as error:
                raise failure(chain.model, "decoding", error) from error.__cause__
            if not checked:
                contracts.check_logits(logits, expected, chain.model)
                checked = True
            kept = to_numpy(logits).copy() if top is not None else None
            uniform = uniforms.next() if draws else 0.0
            token = pick(logits, history, uniform, stop if made < least else ())
            if kept is not None and top is not None:
                self.logprobs.append(_logprobs(kept, token, top))
            if noting:
                history.add(np.zeros(1, np.int64), np.array([token]))
            fed[0, 0] = token
            if feed is not fed:  # from the second token on, the same array
                self._feed = feed = fed
            made += 1
            yield token
            if token in stop:
                self.reason = "stop"
                return

    def _run_ahead(self, stretches: Stretches, wanted: int | None) -> _Ahead | None:
        """The next tokens, as many as the decoder gives by itself; None where it gives none."""
        before = self._decoder.read_state()
        tokens = stretches.next(self._feed[:, 0], wanted)[0].tolist()
        self._ahead = _Ahead(before, self._feed[0].tolist(), tokens) if tokens else None
        return self._ahead

    def forced_logprobs(self, ids: Ids, top: int) -> list[TokenLogprobs]:
        """Of given tokens (T,), fed one after the other."""
        noted = []
        for token in ids.tolist():
            logits = self._decoder.extend(self._feed)
            noted.append(_logprobs(to_numpy(logits), token, top))
            self._feed = np.array([[token]], np.int64)
        return noted

    def state(self, model_id: str) -> GenerationState:
        """Where the sequence stands."""
        if self._ahead is not None:  # left within a stretch: go back to its start, and as far as it was taken
            taken = self._ahead.taken
            self._decoder.write_state(self._ahead.before)
            if len(taken) > 1:
                self._decoder.extend(np.array([taken[:-1]], np.int64))
            self._feed, self._ahead = np.array([taken[-1:]], np.int64), None
        arrays = {_STATE + name: array for name, array in self._decoder.read_state().items()}
        arrays |= {_HISTORY + name: array for name, array in self._history.dump_row(0).items()}
        values = {
            "seed": self._seed,
            "index": self._index,
            "position": self._uniforms.position,
            "pending": self._feed[0].tolist(),
            "model": model_id,
        }
        return GenerationState(arrays, values)

    def _restore(self, state: GenerationState, prompt: Ids) -> None:
        values, arrays = state.values, state.arrays
        self._seed, self._index = values["seed"], values["index"]
        self._uniforms = Uniforms(self._seed, self._index, values["position"])
        named = {name: array for name, array in arrays.items() if name.startswith(_STATE)}
        self._decoder.write_state({name.removeprefix(_STATE): array for name, array in named.items()})
        try:
            self._history.load_row({n.removeprefix(_HISTORY): a for n, a in arrays.items() if n.startswith(_HISTORY)})
        except KeyError:
            raise UsageError(
                "the saved state keeps no history of its tokens, and a sampler needs it; save it with the same samplers"
            ) from None
        self._history.extend_prompt(0, prompt)
        self._feed = np.concatenate([np.array(values["pending"], np.int64), prompt])[None]


class _Ahead:
    """Tokens that a decoder has run ahead to, given out one by one; and the state `before` the token that led there."""

    def __init__(self, before: Tensors, fed: list[int], tokens: list[int]) -> None:
        self.before, self.length = before, len(tokens)
        self._fed, self._tokens, self._left = fed, tokens, iter(tokens)

    def __iter__(self) -> Iterator[int]:
        return self._left

    @property
    def taken(self) -> list[int]:
        """The token that led there and those given out."""
        return self._fed + self._tokens[: self.length - length_hint(self._left)]


class Stretches:
    """Greedy tokens in stretches, each from one call of a decoder that goes on by itself.

    They grow for as long as one takes a hundredth of a second, after which the clock, the caller and the reader of a
    stream have their turn.
    """

    def __init__(self, decoder: GreedyDecoder, chain: Chain, longest: int) -> None:
        self._decoder, self._chain, self._longest = decoder, chain, longest
        self._length = _FIRST_STRETCH

    @classmethod
    def of(cls, decoder: Decoder, chain: Chain, longest: int = _LONGEST_STRETCH) -> Stretches | None:
        """None where the decoder cannot, or where a token is more than the likeliest."""
        able = chain.plainly_greedy and len(chain.forbidden) < chain.vocab_size
        return cls(cast("GreedyDecoder", decoder), chain, longest) if able and offers_greedy(decoder) else None

    def next(self, tokens: Ids, wanted: int | None) -> Ids:
        """The (B, n) tokens that follow `tokens` (B,), at most `wanted`; (B, 0) where the decoder gives none."""
        asked = min(self._length, self._longest, self._length if wanted is None else wanted)
        begun = time.perf_counter()
        try:
            ids = self._decoder.continue_greedily(tokens, asked, self._chain.forbidden)
            contracts.check_greedy(ids, (len(tokens), asked), self._chain.vocab_size, self._chain.model)
        except Exception as error:
            raise failure(self._chain.model, "decoding", error) from error.__cause__
        if time.perf_counter() - begun < _STRETCH_SECONDS / 2:
            self._length = min(2 * self._length, self._longest)
        return ids


def offers_greedy(decoder: Decoder) -> bool:
    """Whether it is a GreedyDecoder."""
    return callable(getattr(decoder, "continue_greedily", None))


@attrs.frozen(eq=False)
class Request:
    """A sequence to generate. `stopped(token)`, if given, is told each token and answers whether to end."""

    number: int
    prompt: Ids
    seed: int
    index: int
    stopped: Callable[[int], bool] | None = None


@attrs.frozen(eq=False)
class Finished:
    """A generated sequence."""

    request: Request
    tokens: Ids
    reason: FinishReason


class BatchDecoding:
    """Many sequences, up to `batch_size` at once. Prompts are fed as forced tokens, so lengths may differ."""

    def __init__(self, model: Model, chain: Chain, limits: Limits, batch_size: int) -> None:
        self._model, self._chain, self._limits, self._batch_size = model, chain, limits, batch_size
        self._rows: list[Request] = []
        self._history = chain.history()
        self._decoder: Decoder | None = None
        self._feed = np.empty((0, 1), np.int64)
        self._left = np.empty(0, np.int64)  # prompt tokens still to be fed, by row
        self._made = np.empty(0, np.int64)
        self._numbers = np.empty((0, BLOCK))  # each row's next uniform numbers
        self._out = np.empty((0, 64), np.int64)
        self._stretches: Stretches | None = None

    def run(self, requests: Iterable[Request]) -> Iterator[Finished]:
        """Generate all `requests`, giving each when it is done."""
        waiting = iter(requests)
        yield from self._admit(waiting)
        while self._rows:
            if self._limits.watched and (reason := self._limits.out_of_time()):
                yield from self._end(range(len(self._rows)), reason)
                for request in waiting:
                    yield Finished(request, np.empty(0, np.int64), reason)
                return
            try:
                ended = self._run_ahead() or self._step()
            except Exception as error:
                raise failure(self._chain.model, "decoding", error) from error.__cause__
            if any(ended.values()):
                for reason, rows in ended.items():
                    yield from self._end(rows, reason)
                self._drop({row for rows in ended.values() for row in rows})
                yield from self._admit(waiting)

    def _run_ahead(self) -> dict[FinishReason, list[int]] | None:
        """As many steps as the decoder takes by itself, and which rows are done; None where it takes none."""
        limits = self._limits
        if self._stretches is None or self._left.any():
            return None
        if limits.stop_tokens and int(self._made.min()) < limits.min_new_tokens:
            return None
        wanted = None if limits.max_new_tokens is None else limits.max_new_tokens - int(self._made.max())
        ids = self._stretches.next(self._feed[:, 0], wanted)
        if not ids.shape[1]:
            self._stretches = None
            return None
        rows = np.arange(len(self._rows))
        if not self._may_stop():
            self._store(rows, ids)
            return self._ended(rows, ids[:, -1])
        ended: dict[FinishReason, list[int]] = {"stop": [], "length": []}
        for tokens in ids.T:
            self._store(rows, tokens[rows, None])
            for reason, done in self._ended(rows, tokens[rows]).items():
                ended[reason] += done
                rows = np.setdiff1d(rows, done, assume_unique=True)
        return ended

    def _may_stop(self) -> bool:
        """Whether a sequence may end before its length."""
        return bool(self._limits.stop_tokens) or self._rows[0].stopped is not None

    def _step(self) -> dict[FinishReason, list[int]]:
        """Feed a token, or as many prompt tokens as all rows have left, and draw where the prompt is done."""
        assert self._decoder is not None
        if not self._left.any():
            logits, drawing = self._decoder.extend(self._feed), None
        else:
            width = max(1, int(self._left.min()))
            logits = self._decoder.extend(self._forced(width))
            self._left = np.maximum(self._left - width, 0)
            drawing = self._left == 0
            if not drawing.any():
                return {}
        return self._draw(logits, drawing)

    def _forced(self, width: int) -> Ids:
        """(B, width): the next prompt tokens, or the last token where the prompt is done."""
        block = np.repeat(self._feed, width, axis=1)
        for row in np.flatnonzero(self._left).tolist():
            prompt, left = self._rows[row].prompt, int(self._left[row])
            start = len(prompt) - left
            block[row] = prompt[start : start + width]
        return block

    def _draw(self, logits: Array, drawing: npt.NDArray[np.bool_] | None) -> dict[FinishReason, list[int]]:
        """Draw a token for the rows of the mask (all without one), and say which are done."""
        chain = self._chain
        contracts.check_logits(logits, (len(self._rows), chain.vocab_size), chain.model)
        rows = np.arange(len(self._rows)) if drawing is None else np.flatnonzero(drawing)
        if self._limits.min_new_tokens and self._limits.stop_tokens:
            early = rows[self._made[rows] < self._limits.min_new_tokens]
            for token in self._limits.stop_tokens:
                logits[early, token] = -np.inf
        uniforms = self._uniforms() if chain.draws else self._made.astype(np.float64)
        tokens = chain.pick(logits, self._history, uniforms, rows)[rows]
        if self._history.level != "none":
            self._history.add(rows, tokens)
        self._store(rows, tokens[:, None])
        return self._ended(rows, tokens)

    def _uniforms(self) -> npt.NDArray[np.float64]:
        """(B,) each row's number for the token that it is at."""
        places = self._made % BLOCK
        for row in np.flatnonzero(places == 0).tolist():
            request = self._rows[row]
            self._numbers[row] = uniform_block(request.seed, request.index, int(self._made[row]))
        numbers: npt.NDArray[np.float64] = self._numbers[np.arange(len(places)), places]
        return numbers

    def _store(self, rows: Ids, tokens: Ids) -> None:
        """Add tokens (len(rows), n) to what these rows have made."""
        count = tokens.shape[1]
        while int(self._made.max()) + count > self._out.shape[1]:
            self._out = np.concatenate([self._out, np.empty_like(self._out)], axis=1)
        self._out[rows[:, None], self._made[rows, None] + np.arange(count)] = tokens
        self._made[rows] += count
        self._feed[rows, 0] = tokens[:, -1]

    def _ended(self, rows: Ids, tokens: Ids) -> dict[FinishReason, list[int]]:
        ended: dict[FinishReason, list[int]] = {}
        stopped = np.zeros(len(rows), bool)
        if self._limits.stop_tokens:
            stopped |= np.isin(tokens, self._limits.stop_tokens)
        if self._rows[0].stopped is not None:
            for i, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist(), strict=True)):
                watcher = self._rows[row].stopped
                stopped[i] |= watcher is not None and watcher(token)
        if stopped.any():
            ended["stop"] = rows[stopped].tolist()
        if self._limits.max_new_tokens is not None:
            full = (self._made[rows] >= self._limits.max_new_tokens) & ~stopped
            if full.any():
                ended["length"] = rows[full].tolist()
        return ended

    def _end(self, rows: Iterable[int], reason: FinishReason) -> Iterator[Finished]:
        for row in rows:
            yield Finished(self._rows[row], self._out[row, : self._made[row]].copy(), reason)

    def _drop(self, gone: set[int]) -> None:
        kept = [row for row in range(len(self._rows)) if row not in gone]
        assert self._decoder is not None
        state = self._decoder.read_state()
        self._decoder.write_state({name: array[kept] for name, array in state.items()})
        self._rows = [self._rows[row] for row in kept]
        self._history.keep_rows(kept)
        self._feed, self._left, self._made = self._feed[kept], self._left[kept], self._made[kept]
        self._out, self._numbers = self._out[kept], self._numbers[kept]

    def _admit(self, waiting: Iterator[Request]) -> Iterator[Finished]:
        """Give free places to waiting requests, each at the model's start state."""
        new: list[Request] = []
        while len(self._rows) + len(new) < self._batch_size and (request := next(waiting, None)) is not None:
            if self._limits.max_new_tokens == 0:
                yield Finished(request, np.empty(0, np.int64), "length")
            else:
                new.append(request)
        if not new:
            return
        start = self._model.decoder(len(new))
        first = start.extend(np.empty((len(new), 0), np.int64))
        contracts.check_logits(first, (len(new), self._chain.vocab_size), self._chain.model)
        empty = np.array([not len(request.prompt) for request in new])
        if self._rows:
            assert self._decoder is not None
            running, fresh = self._decoder.read_state(), start.read_state()
            self._decoder.write_state({name: np.concatenate([running[name], fresh[name]]) for name in fresh})
        else:
            self._decoder = start
            # Where sequences may stop early, what a longer stretch makes beyond that would be for nothing.
            early = self._limits.stop_tokens or new[0].stopped is not None
            self._stretches = Stretches.of(start, self._chain, _STRETCH_TO_STOP if early else _LONGEST_STRETCH)
        before = len(self._rows)
        self._rows += new
        for request in new:
            self._history.append_row(request.prompt)
        size = len(new)
        self._feed = np.concatenate([self._feed, np.zeros((size, 1), np.int64)])
        self._left = np.concatenate([self._left, [len(request.prompt) for request in new]]).astype(np.int64)
        self._made = np.concatenate([self._made, np.zeros(size, np.int64)])
        self._numbers = np.concatenate([self._numbers, np.empty((size, BLOCK))])
        self._out = np.concatenate([self._out, np.empty((size, self._out.shape[1]), np.int64)])
        if empty.any():  # what follows nothing is drawn from the start state, before anything is fed
            padded = np.zeros((before + size, self._chain.vocab_size), to_numpy(first).dtype)
            padded[before:] = to_numpy(first)
            drawing = np.concatenate([np.zeros(before, bool), empty])
            ended = self._draw(padded, drawing)
            for reason, rows in ended.items():
                yield from self._end(rows, reason)
            if ended:
                self._drop({row for rows in ended.values() for row in rows})
                yield from self._admit(waiting)


def can_batch(model: Model) -> bool:
    """Whether the decoder's state keeps its shape from step to step, so that rows can come and go."""
    decoder = model.decoder(1)
    before = {name: array.shape for name, array in decoder.read_state().items()}
    decoder.extend(np.zeros((1, 1), np.int64))
    return before == {name: array.shape for name, array in decoder.read_state().items()}


def _logprobs(logits: npt.NDArray[Any], token: int, top: int) -> TokenLogprobs:
    row = log_softmax(logits)[0]
    best = np.argsort(-row, kind="stable")[:top]
    return TokenLogprobs(token, float(row[token]), tuple((int(i), float(row[i])) for i in best))
