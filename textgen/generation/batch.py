"""Rows that generate together: one decoder, a step at a time for all of them."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sized
from typing import Final

import numpy as np
import numpy.typing as npt

from textgen.contracts import checks
from textgen.generation.chain import END, rows_of
from textgen.generation.greedy import LONGEST, TO_STOP, GreedyChunks
from textgen.generation.groups import Group
from textgen.generation.results import FinishReason, TokenLogprobs
from textgen.generation.row import ENDLESS, Row, RowState
from textgen.generation.rows import DecoderRows
from textgen.generation.sampling import UniformNumbers, to_numpy
from textgen.protocols import Array, Ids

BLOCK: Final = 64  # steps whose random numbers and tokens are kept side by side


class Batch:
    """Rows whose prompts are fed. Tokens of a step stand in a column of a block; `flush` hands blocks to the rows."""

    def __init__(self, decoder: DecoderRows, rows: list[Row]) -> None:
        self.decoder, self.rows = decoder, list(rows)
        self._groups = Group.of(rows)
        self._feed = np.zeros((len(rows), 1), np.int64)
        self._out = np.empty((len(rows), BLOCK), np.int64)
        self._numbers = np.empty((len(rows), BLOCK))
        self._random = UniformNumbers()
        self._column = self._since = (
            0  # where the next token stands, and the first that is not among the parts
        )
        self._parts: list[Ids] = []  # (B, n) tokens that the rows do not have yet
        self._chunks: GreedyChunks | None = None
        for row in self.rows:
            row.base = 0 if row.start is None else row.start.position
            row.earlier = 0 if row.start is None else row.start.lengths[1] - row.made
        self._fill(range(len(rows)))
        self._plan()

    def advance(self, until: float, news: Sized = ()) -> None:
        """Take a step, and more until a row ends, time.perf_counter() reaches `until`, or there is news."""
        while True:
            ended = self._out_of_time()
            if not ended:
                if self._chunks is not None and (found := self._chunk(self._chunks)) is not None:
                    ended = found
                elif len(self.rows) == 1 and not self._noting:
                    ended = self._steps_alone(until, news)
                else:
                    ended = self._draw(self.decoder.extend(self._feed))
            if ended:
                self._leave(ended)
            if ended or news or time.perf_counter() >= until:
                return

    def draw(self, logits: Array) -> None:
        """Draw the tokens that follow the prompts."""
        self._leave(self._draw(logits))

    def flush(self, ended: Container[int] = ()) -> None:
        """Hand the tokens made so far to the rows; those that have just ended in a sampler have none in the last."""
        self._set_aside()
        if self._parts:
            made = np.empty(
                (len(self.rows), self._unknown), np.int64
            )  # contiguous by row, as its reader needs it
            np.concatenate(self._parts, axis=1, out=made)
            self._parts.clear()
            for i, (row, ids) in enumerate(zip(self.rows, made, strict=True)):
                row.add(ids[:-1] if i in ended else ids)

    @property
    def _unknown(self) -> int:
        """How many tokens of each row are made that it does not have yet."""
        return sum(len(part.T) for part in self._parts) + self._column - self._since

    def _set_aside(self) -> None:
        """Put the columns of the block among the parts: to hand them to many rows takes longer."""
        if self._since < self._column:
            self._parts.append(self._out[:, self._since : self._column].copy())
            self._since = self._column

    def join(self, other: Batch) -> None:
        """Take the rows of another batch in."""
        self.flush()
        other.flush()
        size = len(self.rows)
        self.decoder.join(other.decoder)
        for row in other.rows:
            row.base += other._column - self._column
        for group in other._groups:
            group.rows = group.rows + size
            mine = next((mine for mine in self._groups if mine.chain is group.chain), None)
            if mine is None:
                self._groups.append(group)
            else:
                mine.history.join(group.history)
                mine.rows = np.concatenate([mine.rows, group.rows])
        self.rows += other.rows
        self._feed = np.concatenate([self._feed, other._feed])
        self._out = np.concatenate([self._out, other._out])
        self._numbers = np.concatenate([self._numbers, other._numbers])
        self._fill(range(size, len(self.rows)))
        self._plan()

    def end(self, row: Row, reason: FinishReason | None) -> None:
        """End a row now; without a reason it only leaves, with its state as `end`."""
        self._leave({self.rows.index(row): reason}, leave_state=reason is None)

    def _plan(self) -> None:
        """What the next steps have to look at, found once for as long as no row comes or goes."""
        rows = self.rows
        self._left = min((row.left for row in rows), default=ENDLESS)
        self._watched = [
            (i, row)
            for i, row in enumerate(rows)
            if row.deadline is not None or row.request.cancelled
        ]
        self._stopping = [(i, row) for i, row in enumerate(rows) if row.may_stop]
        self._early = [
            (i, row)
            for i, row in self._stopping
            if row.ending and row.made < row.options.min_new_tokens
        ]
        self._noting = [(i, row) for i, row in enumerate(rows) if row.settings.top is not None]
        self._may_end = any(link.ends for group in self._groups for link in group.chain.links)
        able = all(GreedyChunks.can(self.decoder, group.chain) for group in self._groups)
        if not able or self._noting or not rows:
            self._chunks = None
        elif self._chunks is None:
            self._chunks = GreedyChunks(rows[0].settings.chain)

    def _out_of_time(self) -> dict[int, FinishReason | None]:
        found = ((i, row.out_of_time(), row.error) for i, row in self._watched)
        return {i: reason for i, reason, error in found if reason is not None or error is not None}

    def _draw(self, logits: Array) -> dict[int, FinishReason | None]:
        """Draw a token for each row of logits (B, V), and say which rows end with it."""
        chain = self.rows[0].settings.chain
        checks.check_logits(logits, (len(self.rows), chain.vocab_size), chain.model)
        self._next_block()
        column = self._column
        kept = to_numpy(logits).copy() if self._noting else None  # what follows writes into it
        for i, row in self._early:
            if row.made + self._unknown < row.options.min_new_tokens:
                for token in row.ending:
                    logits[i, token] = -np.inf
        tokens = self._pick(logits, self._numbers[:, column])
        self._out[:, column] = self._feed[:, 0] = tokens
        self._column += 1
        self._left -= 1
        ended: dict[int, FinishReason | None] = {}
        if self._may_end:
            ended |= dict.fromkeys(np.flatnonzero(tokens == END).tolist(), "end")
        if any(group.failed for group in self._groups):
            ended |= {i: None for i, row in enumerate(self.rows) if row.error is not None}
        if ended:
            self.flush(ended)
            for i in ended:
                self.rows[i].base -= 1  # nothing was drawn for it
        if kept is not None:
            for i, row in self._noting:
                assert row.settings.top is not None
                if i not in ended:
                    row.logprobs.append(TokenLogprobs.of(kept[i], int(tokens[i]), row.settings.top))
        for i, row in self._stopping:
            if i not in ended and (reason := row.ends_with(int(tokens[i]))) is not None:
                ended[i] = reason
        return self._full(ended)

    def _pick(self, logits: Array, uniforms: npt.NDArray[np.float64]) -> Ids:
        """The tokens (B,), drawn group by group."""
        if len(self._groups) == 1:
            tokens = self._groups[0].pick(logits, uniforms, self.rows)
        else:
            tokens = np.empty(len(self.rows), np.int64)
            for group in self._groups:
                tokens[group.rows] = group.pick(
                    rows_of(logits, group.rows), uniforms[group.rows], self.rows
                )
        return tokens

    def _full(self, ended: dict[int, FinishReason | None]) -> dict[int, FinishReason | None]:
        """With the rows that have all the tokens that they may have."""
        if self._left <= 0:
            self.flush()
            for i, row in enumerate(self.rows):
                if row.left <= 0:
                    ended.setdefault(i, "length")
        return ended

    def _steps_alone(self, until: float, news: Sized) -> dict[int, FinishReason | None]:
        """Steps of a batch of one, with as little as possible around each of them."""
        self._next_block()
        self.flush()
        row, chain, history, feed = (
            self.rows[0],
            self.rows[0].settings.chain,
            self._groups[0].history,
            self._feed,
        )
        extend, pick, draws = self.decoder.extend, chain.pick_one, chain.draws
        number, column, expected = self._numbers[0].item, self._column, (1, chain.vocab_size)
        stop, made, least = row.ending, row.made, row.options.min_new_tokens
        watched, stopping, tokens = bool(self._watched), bool(self._stopping), []
        checked = False
        ended: dict[int, FinishReason | None] = {}
        try:
            for step in range(column, min(BLOCK, column + self._left)):
                if watched and step > column and (ended := self._out_of_time()):
                    break
                logits = extend(feed)
                if not checked or logits.shape != expected:
                    checks.check_logits(logits, expected, chain.model)
                    checked = True
                early = stop if made + step - column < least else ()
                token = pick(logits, history, number(step) if draws else 0.0, early)
                feed[0, 0] = token
                if token == END:
                    ended = {0: "end"}
                    break
                tokens.append(token)
                if stopping and (reason := row.ends_with(token)) is not None:
                    ended = {0: reason}
                    break
                if news or time.perf_counter() >= until:
                    break
        finally:  # what was made before a failure counts
            row.add(np.array(tokens, np.int64))
            self._left -= len(tokens)
            self._column = self._since = column + len(tokens)
        return self._full(ended)

    def _chunk(self, chunks: GreedyChunks) -> dict[int, FinishReason | None] | None:
        """As many steps as the decoder takes by itself, and the rows that end; None where it takes none."""
        if self._stopping:
            self.flush()
        if any(row.made < row.options.min_new_tokens for _, row in self._early):
            return None
        keeping = [i for i, row in self._stopping if row.request.keep_state]
        before = self.decoder.take(keeping) if keeping else None
        fed = self._feed[:, 0].copy()
        ids = chunks.next(self.decoder, fed, self._left, TO_STOP if self._stopping else LONGEST)
        count = ids.shape[1]
        if not count:
            self._chunks = None
            return None
        self._left -= count
        self._feed[:, 0] = ids[:, -1]
        if not self._stopping:
            self._set_aside()
            self._parts.append(ids)
            return self._full({})
        used = [count] * len(self.rows)
        ended: dict[int, FinishReason | None] = {}
        for i, row in self._stopping:
            for place, token in enumerate(ids[i].tolist(), 1):
                if (reason := row.ends_with(token)) is not None:
                    ended[i], used[i] = reason, place
                    break
        for i, (number, row) in enumerate(zip(used, self.rows, strict=True)):
            row.add(ids[i, :number])
            if row.request.keep_state and number < count:
                assert before is not None
                decoder = before.take([keeping.index(i)])
                decoder.extend(np.append(fed[i], ids[i, : number - 1])[None])
                row.end = self._state(i, decoder, ids[i, number - 1 : number])
        return self._full(ended)

    def _leave(self, ended: dict[int, FinishReason | None], *, leave_state: bool = False) -> None:
        """Take rows out."""
        if not ended:
            return
        self.flush()
        for i, reason in ended.items():
            row = self.rows[i]
            if (row.request.keep_state or leave_state) and row.end is None and row.error is None:
                row.end = self._state(
                    i, self.decoder.take([i]), self._feed[i][self._feed[i] != END]
                )
            row.reason = reason
        kept = [i for i in range(len(self.rows)) if i not in ended]
        if not kept:
            self.rows = []
            return
        self.decoder = self.decoder.take(kept)
        places = {old: new for new, old in enumerate(kept)}
        self._groups = [group for group in self._groups if group.keep(places)]
        self.rows = [self.rows[i] for i in kept]
        self._feed, self._out, self._numbers = (
            self._feed[kept],
            self._out[kept],
            self._numbers[kept],
        )
        self._plan()

    def _state(self, i: int, decoder: DecoderRows, pending: Ids) -> RowState:
        row = self.rows[i]
        group = next(group for group in self._groups if i in group.rows)
        history = group.history.dump_row(int(np.flatnonzero(group.rows == i)[0]))
        start = 0 if row.start is None else row.start.position
        position = row.base + self._column if row.settings.chain.draws else start
        lengths = row.prompt_length, row.earlier + row.made
        return RowState(decoder.read_state(), history, position, pending, lengths)

    def _next_block(self) -> None:
        """Begin a block where the present one is full."""
        if self._column == BLOCK:
            self._set_aside()
            self._column = self._since = 0
            for row in self.rows:
                row.base += BLOCK
            self._fill(range(len(self.rows)))

    def _fill(self, rows: Iterable[int]) -> None:
        """Random numbers for the rest of the block."""
        column = self._column
        for i in rows:
            row = self.rows[i]
            if row.settings.chain.draws:
                self._numbers[i, column:] = self._random.take(
                    row.request.seed, row.index, row.base + column, BLOCK - column
                )
