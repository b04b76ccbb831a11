"""Token ids from a model, one sequence at a time. Works on ids alone; textgen.generation.generator adds the text.

This loop and that of the batch draw through the same chain from the same numbers, and rows of a decoder, of
samplers and of draws are independent, so a sequence is the same in either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts import checks
from textgen.contracts.guards import FAILURES, begin_decoding, raise_failure
from textgen.errors import UsageError
from textgen.generation.continuing import TAIL
from textgen.generation.greedy import Ahead, Stretches
from textgen.generation.sampling import Chain, Uniforms, log_softmax, to_numpy
from textgen.generation.state import GenerationState
from textgen.protocols import Ids, Model

FinishReason = Literal["length", "stop", "time", "cancelled"]
_HISTORY: Final = "history."
_STATE: Final = "state."
PREFILL: Final = 1024  # prompt tokens fed at once, after which clock and caller have their turn


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

    @classmethod
    def of(cls, logits: npt.NDArray[Any], token: int, top: int) -> TokenLogprobs:
        """From logits (V,): those of `token` and of the `top` likeliest, the first of equals first."""
        row = log_softmax(logits)
        best = np.argsort(-row, kind="stable")[:top]
        return cls(token, float(row[token]), tuple((int(i), float(row[i])) for i in best))


class SequenceDecoding:
    """One sequence. `reason` says why it ended, once it has; `logprobs` is filled if `top` is not None."""

    def __init__(
        self, model: Model, chain: Chain, prompt: Ids, *, seed: int, index: int, state: GenerationState | None = None
    ) -> None:
        self._chain = chain
        self._decoder = begin_decoding(model, 1, chain.model)
        self._history = chain.history()
        self.seed, self.index = seed, index
        self._uniforms = Uniforms(seed, index, 0 if state is None else state.values["position"])
        self.reason: FinishReason = "length"
        self.before = np.asarray(prompt, np.int64)  # the tokens before those to come, or the last of them
        self.logprobs: list[TokenLogprobs] = []
        self._ahead: Ahead | None = None
        if state is None:
            self._history.append_row(prompt)
            self._feed = np.asarray(prompt, np.int64)[None]
        else:
            self._restore(state, prompt)

    def tokens(self, limits: Limits, top: int | None = None) -> Iterator[int]:
        """Draw until a limit is reached. Between two of them it can be left for good."""
        chain, history, uniforms, stop = self._chain, self._history, self._uniforms, limits.stop_tokens
        extend, pick, draws, noting = self._decoder.extend, chain.pick_one, chain.draws, history.level != "none"
        expected, fed, checked = (1, chain.vocab_size), np.empty((1, 1), np.int64), False
        made, maximum, least, watched = 0, limits.max_new_tokens, limits.min_new_tokens, limits.watched
        if maximum != 0 and not self._feed_prompt(limits):
            return
        stretches, feed = Stretches.of(self._decoder, chain) if top is None else None, self._feed
        while maximum is None or made < maximum:
            if watched and self._is_over(limits):
                return
            if stretches is not None and feed is fed and (made >= least or not stop):
                made = yield from self._in_stretches(stretches, limits, made)
                stretches = None
                if self.reason != "length":
                    return
                continue
            try:
                logits = extend(feed)
                checked = checked and logits.shape == expected
            except FAILURES as error:
                raise_failure(chain.model, "decoding", error)
            if not checked:
                checks.check_logits(logits, expected, chain.model)
                checked = True
            kept = to_numpy(logits).copy() if top is not None else None
            token = pick(logits, history, uniforms.next() if draws else 0.0, stop if made < least else ())
            if kept is not None and top is not None:
                self.logprobs.append(TokenLogprobs.of(kept[0], token, top))
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

    def _is_over(self, limits: Limits) -> bool:
        """Whether the clock or the caller ends it now."""
        reason = limits.out_of_time()
        self.reason = reason or self.reason
        return reason is not None

    def _feed_prompt(self, limits: Limits) -> bool:
        """Feed a long prompt but for its last tokens. Whether there is time to go on."""
        while self._feed.shape[1] > PREFILL:
            if self._is_over(limits):
                return False
            try:
                self._decoder.extend(self._feed[:, :PREFILL])
            except FAILURES as error:
                raise_failure(self._chain.model, "decoding", error)
            self._feed = self._feed[:, PREFILL:]
        return True

    def _in_stretches(self, stretches: Stretches, limits: Limits, made: int) -> Generator[int, None, int]:
        """Tokens for as long as the decoder goes on by itself; how many there are then, `made` of them before."""
        maximum, stop, feed = limits.max_new_tokens, limits.stop_tokens, self._feed
        while maximum is None or made < maximum:
            if limits.watched and self._is_over(limits):
                break
            before = self._decoder.read_state()
            tokens = stretches.next(feed[:, 0], None if maximum is None else maximum - made)[0].tolist()
            if not tokens:
                break
            self._ahead = ahead = Ahead(before, feed[0].tolist(), tokens)
            for token in ahead:
                yield token
                if token in stop:
                    self.reason = "stop"
                    return made
            made += len(tokens)
            feed[0, 0] = tokens[-1]
            self._ahead = None
        return made

    def forced_logprobs(self, ids: Ids, top: int) -> Iterator[TokenLogprobs]:
        """Of given tokens (T,), fed one after the other."""
        for token in ids.tolist():
            logits = self._decoder.extend(self._feed)
            yield TokenLogprobs.of(to_numpy(logits)[0], token, top)
            self._feed = np.array([[token]], np.int64)

    def state(self, model_id: str, made: list[int], sampling: Mapping[str, Any], open_end: str) -> GenerationState:
        """Where the sequence stands after the tokens that it `made`.

        Its chain is made of `sampling`, and its text ends in `open_end`, which a stop text may begin with.
        """
        if self._ahead is not None:  # left within a stretch: go back to its start, and as far as it was taken
            taken = self._ahead.taken
            self._decoder.write_state(self._ahead.before)
            if len(taken) > 1:
                self._decoder.extend(np.array([taken[:-1]], np.int64))
            self._feed, self._ahead = np.array([taken[-1:]], np.int64), None
        arrays = {_STATE + name: array for name, array in self._decoder.read_state().items()}
        arrays |= {_HISTORY + name: array for name, array in self._history.dump_row(0).items()}
        values = {
            "seed": self.seed,
            "index": self.index,
            "position": self._uniforms.position,
            "pending": self._feed[0].tolist(),
            "tail": [*self.before.tolist(), *made][-TAIL:],
            "model": model_id,
            "sampling": dict(sampling),
            "open_end": open_end,
        }
        return GenerationState(arrays, values)

    def _restore(self, state: GenerationState, prompt: Ids) -> None:
        values, arrays = state.values, state.arrays
        named = {name: array for name, array in arrays.items() if name.startswith(_STATE)}
        self._decoder.write_state({name.removeprefix(_STATE): array for name, array in named.items()})
        try:
            self._history.load_row({n.removeprefix(_HISTORY): a for n, a in arrays.items() if n.startswith(_HISTORY)})
        except KeyError:
            raise UsageError(
                "the saved state keeps no history of its tokens, and a sampler needs it; give the sampling options "
                "that the text was begun with, or none"
            ) from None
        self._history.extend_prompt(0, prompt)
        self._feed = np.concatenate([np.array(values["pending"], np.int64), prompt])[None]
        self.before = np.concatenate([np.array(values["tail"], np.int64), prompt])


def prompt_logprobs(
    model: Model, chain: Chain, ids: Ids, top: int, state: GenerationState | None = None
) -> Sequence[TokenLogprobs]:
    """Of each token of a prompt (T,), given those before it and the `state`, or the start state."""
    nothing = SequenceDecoding(model, chain, ids[:0], seed=0, index=0, state=state)
    try:
        return tuple(nothing.forced_logprobs(ids, top))
    except FAILURES as error:
        raise_failure(chain.model, "decoding", error)
