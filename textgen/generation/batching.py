"""Token ids of many sequences in one decoder batch, whose places are taken again as they fall free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts import checks
from textgen.contracts.guards import FAILURES, begin_decoding, raise_failure
from textgen.generation.decoding import PREFILL, FinishReason, Limits, TokenLogprobs
from textgen.generation.greedy import LONGEST, TO_STOP, Stretches
from textgen.generation.sampling import BLOCK, Chain, to_numpy, uniform_block
from textgen.plugin.component import Offer
from textgen.protocols import Array, Decoder, Ids, Model

_WIDTH: Final = 1024  # tokens that there is room for at first


@attrs.frozen(eq=False)
class Request:
    """A sequence to generate. `stopped(token)`, if given, is told each token and answers whether to end."""

    prompt: Ids
    seed: int
    index: int
    stopped: Callable[[int], bool] | None = None


@attrs.frozen(eq=False)
class Finished:
    """A generated sequence. Its tokens are a view that the next steps write into."""

    request: Request
    tokens: Ids
    reason: FinishReason
    logprobs: Sequence[TokenLogprobs] = ()


class BatchDecoding:
    """Many sequences, up to `batch_size` at once. Prompts are fed as forced tokens, so lengths may differ.

    Without `keep`, the tokens of what is finished are left out, and endless sequences take no more and more memory.
    With `top`, log-probabilities are noted.
    """

    def __init__(
        self,
        model: Model,
        chain: Chain,
        limits: Limits,
        batch_size: int,
        *,
        keep: bool = True,
        top: int | None = None,
    ) -> None:
        self._model, self._chain, self._limits, self._batch_size = model, chain, limits, batch_size
        self._keep, self._top = keep, top
        self._rows: list[Request] = []
        self._logprobs: list[list[TokenLogprobs]] = []  # by row
        self._history = chain.history()
        self._decoder: Decoder | None = None
        self._feed = np.empty((0, 1), np.int64)
        self._left = np.empty(0, np.int64)  # prompt tokens still to be fed, by row
        self._made = np.empty(0, np.int64)
        self._numbers = np.empty((0, BLOCK))  # each row's next uniform numbers
        width = _WIDTH if limits.max_new_tokens is None else min(limits.max_new_tokens, _WIDTH)
        self._out = np.empty((0, max(1, width)), np.int64)
        self._stretches: Stretches | None = None

    def run(self, requests: Iterable[Request]) -> Iterator[Finished | None]:
        """Generate all `requests`, giving each when it is done; and None after a step that ended none."""
        waiting = iter(requests)
        yield from self._admit(waiting)
        while self._rows:
            if self._limits.watched and (reason := self._limits.out_of_time()):
                yield from self._end(range(len(self._rows)), reason)
                for request in waiting:
                    yield Finished(request, np.empty(0, np.int64), reason)
                return
            try:
                ended = self._run_ahead()
                if ended is None:
                    ended = self._step()
            except FAILURES as error:
                raise_failure(self._chain.model, "decoding", error)
            if any(ended.values()):
                for reason, rows in ended.items():
                    yield from self._end(rows, reason)
                self._drop({row for rows in ended.values() for row in rows})
                yield from self._admit(waiting)
            else:
                yield None

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
            width = min(max(1, int(self._left.min())), PREFILL)
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
        checks.check_logits(logits, (len(self._rows), chain.vocab_size), chain.model)
        rows = np.arange(len(self._rows)) if drawing is None else np.flatnonzero(drawing)
        kept = None if self._top is None else to_numpy(logits).copy()  # what follows writes into it
        if self._limits.min_new_tokens and self._limits.stop_tokens:
            early = rows[self._made[rows] < self._limits.min_new_tokens]
            for token in self._limits.stop_tokens:
                logits[early, token] = -np.inf
        uniforms = self._uniforms() if chain.draws else self._made.astype(np.float64)
        tokens = chain.pick(logits, self._history, uniforms, rows)[rows]
        if kept is not None and self._top is not None:
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                self._logprobs[row].append(TokenLogprobs.of(kept[row], token, self._top))
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
        if self._keep:
            least, most = int(self._made.min()), int(self._made.max())
            while most + count > self._out.shape[1]:
                self._out = np.concatenate([self._out, np.empty_like(self._out)], axis=1)
            if least == most and len(rows) == len(self._rows):  # as often, and much faster
                self._out[:, most : most + count] = tokens
            else:
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
            made = int(self._made[row]) if self._keep else 0
            yield Finished(self._rows[row], self._out[row, :made], reason, self._logprobs[row])

    def _drop(self, gone: set[int]) -> None:
        kept = [row for row in range(len(self._rows)) if row not in gone]
        assert self._decoder is not None
        state = self._decoder.read_state()
        self._decoder.write_state({name: array[kept] for name, array in state.items()})
        self._rows = [self._rows[row] for row in kept]
        self._logprobs = [self._logprobs[row] for row in kept]
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
        start = begin_decoding(self._model, len(new), self._chain.model)
        first = start.extend(np.empty((len(new), 0), np.int64))
        checks.check_logits(first, (len(new), self._chain.vocab_size), self._chain.model)
        empty = np.array([not len(request.prompt) for request in new])
        if self._rows:
            assert self._decoder is not None
            running, fresh = self._decoder.read_state(), start.read_state()
            self._decoder.write_state({name: np.concatenate([running[name], fresh[name]]) for name in fresh})
        else:
            self._decoder = start
            # Where sequences may stop early, what a longer stretch makes beyond that would be for nothing.
            early = self._limits.stop_tokens or new[0].stopped is not None
            stretches = Stretches.of(start, self._chain, TO_STOP if early else LONGEST)
            self._stretches = stretches if self._top is None else None
        before, size = len(self._rows), len(new)
        self._add(new)
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

    def _add(self, new: list[Request]) -> None:
        """Rows for sequences whose prompts are still to be fed."""
        self._rows += new
        self._logprobs += [[] for _ in new]
        for request in new:
            self._history.append_row(request.prompt)
        size = len(new)
        self._feed = np.concatenate([self._feed, np.zeros((size, 1), np.int64)])
        self._left = np.concatenate([self._left, [len(request.prompt) for request in new]]).astype(np.int64)
        self._made = np.concatenate([self._made, np.zeros(size, np.int64)])
        numbers, out = np.empty((size, BLOCK)), np.empty((size, self._out.shape[1]), np.int64)
        self._numbers = np.concatenate([self._numbers, numbers]) if len(self._numbers) else numbers
        self._out = np.concatenate([self._out, out]) if len(self._out) else out


def can_batch(model: Model, offer: Offer) -> bool:
    """Whether the decoder's state keeps its shape from step to step, so that rows can come and go."""
    decoder = begin_decoding(model, 1, offer)
    before = {name: array.shape for name, array in decoder.read_state().items()}
    try:
        decoder.extend(np.zeros((1, 1), np.int64))
    except FAILURES as error:
        raise_failure(offer, "decoding", error)
    return before == {name: array.shape for name, array in decoder.read_state().items()}
