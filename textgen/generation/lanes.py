"""Texts that a strategy makes of lanes: rows of a decoder that fork, wait and are dropped."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.checks import blame
from textgen.data import splitmix
from textgen.generation.batch import Begin, begun, join_rows, state_of, take_rows
from textgen.generation.chain import END
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import FinishReason, RankedText, TokenLogprobs
from textgen.generation.row import Row, failing
from textgen.generation.sampling import SequenceHistory, log_softmax, step_numbers, to_numpy
from textgen.protocols import NEW_LANE, Array, Floats, Ids, Moves, Ranking, Tensors

_LANE: Final = 0xD1B54A32D192ED03  # times its place, it keys the random numbers of a lane
_STRATEGY: Final = 2**32 + 1  # in place of a sampler's place, as that of the draw


@attrs.define(eq=False)
class Lane:
    """A way in which a text may continue.

    logits    (T, V) after each of the tokens that it was fed last, at least one row
    ids       generated so far
    reason    why the text would end here, if it would
    logprobs  of the ids, if the request asks for them
    """

    logits: npt.NDArray[Any] = attrs.field(repr=False)
    ids: list[int] = attrs.field(factory=list)
    reason: FinishReason | None = None
    logprobs: list[TokenLogprobs] = attrs.field(factory=list)

    def fork(self) -> Lane:
        """A copy that goes its own way."""
        return Lane(self.logits[-1:], self.ids[:], self.reason, self.logprobs[:])


class StrategyText:
    """textgen.protocols.Lanes: a text of a strategy, its lanes, and what samplers and strategy know
    of each.
    """

    logits: npt.NDArray[Any]

    def __init__(self, row: Row, logits: npt.NDArray[Any]) -> None:
        self.row, self.chain = row, row.request.chain
        assert self.chain.strategy is not None
        self.strategy, self.offer = self.chain.strategy
        row.open(logits)
        self.lanes = [Lane(logits[None])]
        self.history: SequenceHistory = begun(self.chain, [row])
        self.state: Tensors = {}
        if callable(start := getattr(self.strategy, "start", None)):
            self.state = {name: np.asarray(array)[None] for name, array in start().items()}

    def __len__(self) -> int:
        return len(self.lanes)

    @property
    def tokens(self) -> list[Ids]:
        """(N,) ids that each lane has generated."""
        return [np.array(lane.ids, np.int64) for lane in self.lanes]

    @property
    def ended(self) -> npt.NDArray[np.bool_]:
        """(L,) which lanes hold a text that is complete."""
        return np.array([lane.reason is not None for lane in self.lanes])

    def fed(self, lane: int) -> Floats:
        """(T, V) log-probabilities after each token that a lane was fed last, by the model."""
        return log_softmax(self.lanes[lane].logits)

    def logprobs(self) -> Floats:
        """(L, V) log-probabilities of the next token by the model; -inf for a forbidden one."""
        made = log_softmax(np.stack([lane.logits[-1] for lane in self.lanes]))
        made[np.isneginf(self.logits)] = -np.inf
        return made

    def sampled(self) -> Floats:
        """(L, V) log-probabilities of the next token after the sampler chain."""
        made = to_numpy(self.chain.sampled(self.logits.copy(), self.history))
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(log_softmax(made), nan=-np.inf, neginf=-np.inf)

    def draw(self, logits: npt.NDArray[Any] | None = None) -> Ids:
        """(L,) a token for each lane, drawn as sampling draws it; -1 where a sampler ends it.

        Logits (L, V) replace those of the model, and go through the sampler chain too.
        """
        if logits is not None:
            self.logits = logits.astype(self.logits.dtype)
        history = self.history.rows(range(len(self)))
        return self.chain.pick(self.logits.copy(), history, history.numbers()[:, 0])

    def random(self, count: int = 1) -> Floats:
        """(L, count) random numbers from [0, 1), by seed, index, step and lane."""
        return step_numbers(self.history.streams, self.history.lengths, _STRATEGY, count)

    def step(self) -> Moves | Ranking:
        """The strategy's next moves, checked; lanes and histories are then as they say."""
        self.logits = np.stack([lane.logits[-1] for lane in self.lanes])
        self.logits[:, list(self.chain.forbidden)] = -np.inf
        for logits, lane in zip(self.logits, self.lanes, strict=True):
            if self.row.earlier + len(lane.ids) < self.row.request.min_new_tokens:
                logits[list(self.row.ending)] = -np.inf
        made = self.strategy.step(self)
        if fault := self._fault(made):
            raise blame(self.offer, f"gave from step {fault}")
        if isinstance(made, Moves):
            self._continue(made)
        return made

    def _continue(self, moves: Moves) -> None:
        sources = [max(lane, 0) for lane in moves.lanes]
        new = [place for place, lane in enumerate(moves.lanes) if lane == NEW_LANE]
        history = self.history.rows(sources)
        if new:
            history.put(new, begun(self.chain, [self.row] * len(new)))
        for step in range(max(map(len, moves.tokens))):
            fed = [i for i, ids in enumerate(moves.tokens) if len(ids) > step and ids[step] != END]
            part = history.rows(fed)
            tokens = np.array([moves.tokens[i][step] for i in fed], np.int64)
            self.chain.note(tokens, self.logits[[sources[i] for i in fed]], part)
            history.put(fed, part)
        keys = np.arange(len(sources), dtype=np.uint64) * np.uint64(_LANE)
        history.arrays["streams"][:, 0] = np.uint64(self.row.request.seed) ^ splitmix(keys)
        history.arrays["streams"][0, 0] = self.row.request.seed  # the first is that of sampling
        self.history = history
        self.lanes = [self.lanes[source].fork() for source in sources]
        for place in new:
            self.lanes[place] = Lane(NO_IDS)
        self.state = {name: np.asarray(array) for name, array in moves.state.items()}

    def to_feed(self, moves: Moves) -> list[Ids]:
        """(T,) ids that each lane of the moves is fed; a new one begins as prompts do."""
        before = self.row.request.prompt.before.tolist()
        each = zip(moves.lanes, moves.tokens, strict=True)
        fed = [[*(before if lane == NEW_LANE else ()), *ids] for lane, ids in each]
        return [np.array([i for i in ids if i != END], np.int64) for ids in fed]

    def note(self, moves: Moves, logits: Sequence[npt.NDArray[Any]]) -> None:
        """Note the tokens of the moves, and for each lane the logits (T, V) after them."""
        for lane, tokens, after in zip(self.lanes, moves.tokens, logits, strict=True):
            given = [*lane.logits[-1:], *after][-1 - len(tokens) :]
            for token, before in zip(map(int, tokens), given, strict=False):
                if token == END:
                    lane.reason = "end"
                    break
                if (most := self.row.request.logprobs) is not None:
                    lane.logprobs.append(TokenLogprobs.of(log_softmax(before), token, most))
                lane.ids.append(token)
                lane.reason = lane.reason or self._reason(lane.ids)
            if len(after):
                lane.logits = after

    def emit(self, best: int, count: int) -> FinishReason | None:
        """Hand the first `count` tokens of a lane to the row, as far as it lacks them. Why the text
        ends with them, if it does.
        """
        row, lane = self.row, self.lanes[best]
        ids, reason = list[int](), None
        for token in lane.ids[row.made : count]:
            ids.append(token)
            if (reason := row.ends_with(token)) is not None:
                break
        row.logprobs += lane.logprobs[row.made : row.made + len(ids)]
        if ids:
            row.add(np.array(ids))
        return reason or (lane.reason if count >= len(lane.ids) else None)

    def rank(self, ranking: Ranking) -> None:
        """Keep the ranked texts."""
        scores = [float(score) for score in ranking.scores] or [0.0] * len(ranking.lanes)
        for lane, score in zip(ranking.lanes, scores, strict=True):
            ids = self.lanes[lane].ids
            text = self.row.tokenizer.decode(np.array(ids, np.int64))
            self.row.ranked.append(RankedText(text, tuple(ids), score))

    def _reason(self, ids: list[int]) -> FinishReason | None:
        """Why the text would end with these ids, if it would."""
        options, token = self.row.request, ids[-1]
        if token == self.row.request.end_id:
            return "end"
        if token in options.stop_tokens:
            return "stop"
        if options.stops:
            counted = ids[max(0, options.min_new_tokens - self.row.earlier) :][
                -max(map(len, options.stops)) - 8 :
            ]
            text = self.row.tokenizer.decode(np.array(counted, np.int64))
            if any(stop in text for stop in options.stops):
                return "stop"
        most = options.max_new_tokens
        return "length" if most is not None and len(ids) >= most else None

    def _fault(self, made: Any) -> str:
        """What is wrong with an answer of the strategy, or ""."""
        if isinstance(made, Ranking):
            if not made.lanes or len(made.scores) not in (0, len(made.lanes)):
                return "a ranking without lanes, or with another number of scores"
            return _outside(made.lanes, 0, len(self.lanes))
        if not isinstance(made, Moves):
            return f"{type(made).__name__}, and must give Moves or a Ranking"
        count, most = len(made.lanes), self.strategy.lanes
        if not 0 < count <= most:
            return f"{count} lanes, and announces 1 to {most} with its attribute lanes"
        if len(made.tokens) != count:
            return f"tokens for {len(made.tokens)} of {count} lanes"
        if any(np.shape(array)[:1] != (count,) for array in made.state.values()):
            return f"a state that is not of {count} lanes"
        ids = [token for tokens in made.tokens for token in tokens]
        return _outside(made.lanes, NEW_LANE, len(self.lanes)) or _outside(
            ids, END, self.chain.vocab_size
        )


class LaneBatch:
    """The texts of strategies, whose lanes are fed together; what Batch is for sampled ones."""

    def __init__(self, begin: Begin, decoder: Any, rows: Sequence[Row]) -> None:
        self._begin, self._decoder, self._begun = begin, decoder, rows
        self._texts: list[StrategyText] = []  # whose lanes are the rows of the decoder

    @property
    def rows(self) -> list[Row]:
        """The texts that have not ended."""
        rows = [text.row for text in self._texts] or self._begun
        return [row for row in rows if not row.ended]

    def draw(self, logits: Array) -> None:
        """Begin after the prompts, with their logits (B, V)."""
        values = to_numpy(logits).copy()
        self._texts = [StrategyText(*each) for each in zip(self._begun, values, strict=True)]
        self._step()

    def advance(self, until: float) -> None:
        """Take steps until a text ends or time.perf_counter() reaches `until`, at least one."""
        count = len(self.rows)
        while len(self.rows) == count:
            self._step()
            if time.perf_counter() >= until:
                return

    def flush(self) -> None:
        """Do nothing: rows have their tokens once these are final."""

    def pause_unread(self) -> None:
        """Do nothing: lanes are kept until the text ends."""

    def join(self, other: LaneBatch) -> None:
        """Take the texts of another batch in."""
        join_rows(self._decoder, other._decoder)
        self._texts += other._texts

    def _step(self) -> None:
        """Ask each strategy for its moves, and carry them out for all texts together."""
        going: list[tuple[StrategyText, Moves]] = []
        sources, first = list[int](), 0
        for text in self._texts:
            count, moves = len(text.lanes), None
            if not text.row.ended:
                with failing([text.row]):
                    moves = self._moves(text, first)
            if moves is not None:
                going.append((text, moves))
                sources += [i if i == NEW_LANE else first + i for i in moves.lanes]
            first += count
        self._texts = [text for text, _ in going] or self._texts[:1]  # one that has ended
        if not going:
            return
        logits = self._feed(sources, [ids for text, moves in going for ids in text.to_feed(moves)])
        first = 0
        for text, moves in going:
            with failing([text.row]):
                text.note(moves, logits[first : first + len(text.lanes)])
                if (reason := text.emit(0, moves.final)) is not None:
                    self._end(text, first, 0, reason)
            first += len(text.lanes)

    def _moves(self, text: StrategyText, first: int) -> Moves | None:
        """The moves of a text with the lanes from `first` on; None once it has ended."""
        row = text.row
        if (reason := row.out_of_time()) is not None:
            self._end(text, first, 0, reason)
        elif row.error is None:
            made = text.step()
            if isinstance(made, Moves):
                return made
            best = made.lanes[0]
            text.rank(made)
            self._end(text, first, best, text.lanes[best].reason or "length")
        return None

    def _end(self, text: StrategyText, first: int, best: int, reason: FinishReason) -> None:
        """End a text with all tokens of a lane."""
        row = text.row
        ended = text.emit(best, len(text.lanes[best].ids))
        if row.request.keep_state:
            decoder = take_rows(self._begin, self._decoder, [first + best])
            row.end = state_of(row, text.history.rows([best]), decoder, NO_IDS)
        row.reason = ended or reason

    def _feed(self, sources: Sequence[int], fed: Sequence[Ids]) -> list[npt.NDArray[Any]]:
        """Make the decoder's rows those of `sources`, and feed each its ids (T,).

        The logits (T, V) after each of these; (0, V) for one that waits.
        """
        groups = defaultdict[tuple[bool, int], list[int]](list)
        for i, (source, ids) in enumerate(zip(sources, fed, strict=True)):
            groups[source == NEW_LANE, len(ids)].append(i)
        logits: dict[int, npt.NDArray[Any]] = {}
        joined: Any = None
        for (is_new, length), mine in sorted(groups.items()):
            if is_new:
                decoder = self._begin(len(mine))
            else:
                decoder = take_rows(self._begin, self._decoder, [sources[i] for i in mine])
            ids = np.stack([fed[i] for i in mine])
            if length > 1:
                made = to_numpy(decoder.score(ids))
            elif length or is_new:  # a copy, since the next call may reuse the array
                made = to_numpy(decoder.extend(ids))[:, None].copy()
            else:
                made = np.empty((len(mine), 0, 0))
            logits.update(zip(mine, made, strict=True))
            if joined is None:
                joined = decoder
            else:
                join_rows(joined, decoder)
        order = [*logits]
        if order != sorted(order):
            joined = take_rows(self._begin, joined, [order.index(i) for i in range(len(fed))])
        self._decoder = joined
        return [logits[i] for i in range(len(fed))]


def _outside(numbers: Sequence[int], least: int, end: int) -> str:
    """Which number is not one of a range; "" if all are."""
    wrong = [number for number in numbers if not least <= number < end]
    return f"{wrong[0]}, which is not from {least} to {end - 1}" if wrong else ""
