"""Texts that a strategy makes of lanes: rows of a decoder that fork, wait and are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.decoders import DecoderFactory, Decoders, Feed
from textgen.data import splitmix
from textgen.errors import ContractError, UsageError
from textgen.generation.sampling.chain import END, rows_of
from textgen.generation.sampling.draw import log_softmax, step_numbers, to_numpy
from textgen.generation.sampling.history import SequenceHistory
from textgen.generation.texts.detokenise import TAIL, Detokeniser
from textgen.generation.texts.prompts import NO_IDS
from textgen.generation.texts.results import FinishReason, RankedText, TokenLogprobs, reading_state
from textgen.generation.texts.row import Row, failing, start_history
from textgen.protocols import NEW_LANE, Array, Floats, Ids, Moves, Ranking, Tensors

_LANE: Final = 0xD1B54A32D192ED03  # times its index, it keys the random numbers of a lane
_STRATEGY: Final = 2**32 + 1  # in place of a sampler's position in the chain, as _DRAW
_MOST_STEPS: Final = 2000  # for a token


@attrs.define(eq=False)
class Lane:
    """A way in which a text may continue.

    feed       its row of a decoder, and what that is fed
    text       finds the stop texts
    begin      what it continues, as in Moves.lanes: 0 is the prompt, with the text so far
    logits     (T, V) after each of the tokens that it was fed last, at least one row
    ids        that it was fed since then
    reason     why the text would end here, if it would
    logprobs   of the ids, if the request asks for them
    unnoted    the last ids and the logits (V,) before each, which its history lacks: samplers see
               a drafted token only once something is to be drawn after it
    """

    feed: Feed
    text: Detokeniser
    begin: int = 0
    logits: npt.NDArray[Any] = attrs.field(default=np.empty((0, 0)), repr=False)
    ids: list[int] = attrs.field(factory=list)
    reason: FinishReason | None = None
    logprobs: list[TokenLogprobs] = attrs.field(factory=list)
    unnoted: list[tuple[int, npt.NDArray[Any]]] = attrs.field(factory=list)

    def fork(self, ids: Ids) -> Lane:
        """A copy that goes its own way, and is to be fed ids (1, T)."""
        return attrs.evolve(
            self,
            feed=Feed(self.feed.factory, self.feed.rows, ids),
            text=self.text.fork() if self.text.searches else self.text,
            logits=self.logits[-1:],
            ids=self.ids[:],
            logprobs=self.logprobs[:],
            unnoted=self.unnoted[:],
        )


class StrategyText:
    """textgen.protocols.Lanes: a text of a strategy, its lanes, and what samplers and strategy know
    of each.

    A step carries out the moves for which the strategy was asked in the step before: the lanes are
    made as the moves say, their feeds are fed, and the strategy is asked for the next moves. What
    is final goes to the row.
    """

    logits: npt.NDArray[Any]

    def __init__(self, decoders: Decoders, factory: DecoderFactory, index: int, row: Row) -> None:
        self._decoders, self._row, self._chain = decoders, row, row.request.chain
        assert self._chain.strategy is not None
        self._strategy, self._source = self._chain.strategy
        self._factories = (factory, *self._chain.others)
        self._text = row.text.fork()
        self._lanes = [Lane(Feed(factory, np.array([index]), NO_IDS[None]), self._text.fork())]
        self._before = row.length  # tokens of the text that no lane has
        self.prompt: Ids = row.request.prompt.ids
        self._history: SequenceHistory = start_history([row])
        start: Tensors = getattr(self._strategy, "start", dict)()
        self.state: Tensors = {name: np.asarray(array)[None] for name, array in start.items()}
        self._moves = Moves([0], [()], self.state)
        self._next: list[Lane] = []  # as the moves say; none before the first step
        self._steps = Counter[int]()  # by the tokens of the longest lane and those that are shown

    # What the strategy sees, as textgen.protocols.Lanes says.

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def tokens(self) -> list[Ids]:
        """(N,) ids that each lane has generated."""
        return [np.array(lane.ids, np.int64) for lane in self._lanes]

    @property
    def ended(self) -> npt.NDArray[np.bool_]:
        """(L,) which lanes hold a text that is complete."""
        return np.array([lane.reason is not None for lane in self._lanes])

    def fed(self, lane: int) -> Floats:
        """(T, V) log-probabilities after each token that a lane was fed last, by the model."""
        return log_softmax(self._lanes[lane].logits)

    def logprobs(self) -> Floats:
        """(L, V) log-probabilities of the next token by the model; -inf for a forbidden one."""
        made = log_softmax(np.stack([lane.logits[-1] for lane in self._lanes]))
        made[np.isneginf(self.logits)] = -np.inf
        return made

    def sampled(self) -> Floats:
        """(L, V) log-probabilities of the next token after the sampler chain."""
        made = to_numpy(self._chain.sampled(self.logits, self._history_of()))
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(log_softmax(made), nan=-np.inf, neginf=-np.inf)

    def draw(self, logits: npt.NDArray[Any] | None = None) -> Ids:
        """(L,) a token for each lane, drawn as sampling draws it; -1 where a sampler ends it.

        Logits (L, V) replace those of the model, and go through the sampler chain too.
        """
        if logits is not None:
            self.logits = logits.astype(self.logits.dtype)
        history = self._history_of()
        return self._chain.pick(self.logits.copy(), history, history.numbers()[:, 0])

    def verify(self, lane: int) -> Ids:
        """(N,) the tokens that sampling draws after a lane, as long as the first lane was fed the
        same from there on, and the one after them; -1 where a sampler ends the text.
        """
        history, made = self._history_of(lane), list[int]()
        history.streams[0, 0] = self._row.request.seed
        first, sure = self._lanes[0], self._lanes[lane]
        drafted = first.ids[len(sure.ids) :]
        if len(drafted) > len(first.logits):
            raise ValueError(f"the first lane was not fed what follows lane {lane} in one step")
        after = first.logits[len(first.logits) - len(drafted) :]
        for position, logits in enumerate([sure.logits[-1], *after]):
            allowed = self._allowed(logits[None], len(sure.ids) + position)
            token = int(self._chain.pick(allowed, history, history.numbers()[:, 0])[0])
            made.append(token)
            if position == len(drafted) or drafted[position] != token:
                break
        return np.array(made)

    def random(self, count: int = 1) -> Floats:
        """(L, count) random numbers from [0, 1), by seed, index, step and lane."""
        history = self._history_of()
        return step_numbers(history.streams, history.lengths, _STRATEGY, count)

    # What the batch asks of each of its parts.

    @property
    def rows(self) -> list[Row]:
        """The text, until it ends or pauses."""
        return [self._row] if self._lanes and not self._row.ended else []

    def begin(self, logits: Array) -> None:
        """Note those of the logits (N, V) of a batch that follow the prompt, and begin with the
        lanes of a saved state.
        """
        (lane,) = self._lanes
        lane.logits = self.logits = to_numpy(rows_of(logits, lane.feed.rows))
        self._row.open(self.logits[0])
        saved = self._row.resumed
        if saved is not None and saved.strategy == self._source.name:
            with failing([self._row]), reading_state():
                tokens = [lane[1:] for lane in saved.lanes]
                self._moves = Moves([lane[0] for lane in saved.lanes], tokens, saved.memory)
                if fault := self._fault(self._moves):
                    raise UsageError(f"the saved state has {fault}", argument="state")

    def feeds(self) -> list[Feed]:
        """Feeds of the lanes that the moves ask for."""
        self._next = []
        for source, tokens in zip(self._moves.lanes, self._moves.tokens, strict=True):
            ids = np.array([[token for token in tokens if token != END]], np.int64)
            if source > NEW_LANE:
                lane = self._lanes[source].fork(ids)
            else:
                lane = self._new_lane(source, ids)
            self._next.append(lane)
        return [lane.feed for lane in self._next]

    def _new_lane(self, begin: int, ids: Ids) -> Lane:
        """A lane without the prompt, which is to be fed ids (1, T)."""
        row, priming = self._row, self._row.priming
        text = Detokeniser(
            row.tokenizer,
            priming[-TAIL:],
            stops=row.request.stops,
            min_tokens=row.request.min_new_tokens - self._before,
        )
        fed = np.concatenate([priming[None], ids], axis=1)
        return Lane(Feed(self._factories[NEW_LANE - begin], NO_IDS, fed), text, begin)

    def step(self) -> bool:
        """Carry out the moves, once they are fed, and ask for the next. Whether the text ends."""
        with failing([self._row]):
            self._carry_out()
            if (reason := self._hand_over(0, self._moves.final or 0)) is not None:
                self._end(0, reason, 0)
            else:
                self._ask_strategy()
        return self._row.ended

    def end_overdue(self) -> bool:
        """End the text if its time is over or its caller ends it. Whether it ends."""
        with failing([self._row]):
            if (reason := self._row.out_of_time()) is not None:
                sure = self._shown if self._row.request.keep_state else self._moves.final
                self._end(max(self._moves.lanes[0], 0), reason, sure)  # what goes on is sure
        return self._row.ended

    def steps(self, until: float) -> None:
        """None: each step is asked for."""

    def flush(self) -> None:
        """Do nothing: the row has tokens once they are final."""

    def absorb(self, other: object) -> bool:
        """False: each text has its own lanes."""
        return False

    def pause(self, rows: Collection[Row]) -> list[Row]:
        """Save the text, and take it out, if it is among some."""
        paused = [row for row in self.rows if row in rows]
        for row in paused:
            with failing(paused):
                self._save(is_cut=True)
                row.pause()
            self._lanes = []
        return paused

    def move(self, decoders: Decoders, first_rows: Mapping[DecoderFactory, int]) -> None:
        """Note that the rows are now in other decoders, after so many others of their models."""
        self._decoders = decoders
        for lane in self._lanes:
            lane.feed.rows = lane.feed.rows + first_rows[lane.feed.factory]

    # How a step is made.

    @property
    def _shown(self) -> int:
        """Number of tokens of the first lane that the row has."""
        return self._row.length - self._before

    def _ask_strategy(self) -> None:
        """Ask the strategy for its next moves, and check them; after a ranking, end the text."""
        self.logits = np.concatenate(
            [self._allowed(lane.logits[-1:], len(lane.ids)) for lane in self._lanes]
        )
        longest = min(max(len(lane.ids) for lane in self._lanes), self._shown + self._row.left)
        gained = longest + self._shown
        self._steps[gained] += 1
        if self._steps[gained] > _MOST_STEPS:
            cause = f"takes more than {_MOST_STEPS:,} steps for a token; is a Ranking missing?"
            raise ContractError(self._source, cause)
        answer = self._strategy.step(self)
        if fault := self._fault(answer):
            raise ContractError(self._source, f"gave from step {fault}")
        if isinstance(answer, Moves):
            self._moves = answer
        else:
            hold_back = self._row.request.keep_state
            for lane, score in zip_longest(answer.lanes, answer.scores, fillvalue=0.0):
                ids = self._lanes[int(lane)].ids
                text = self._text.whole(ids, hold_back=hold_back)
                self._row.ranked.append(RankedText(text, tuple(ids), float(score)))
            self._end(answer.lanes[0], "length")

    def _allowed(self, logits: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        """Logits (1, V) without what may not follow so many tokens."""
        made = logits.copy()
        made[:, list(self._chain.forbidden)] = -np.inf
        if self._before + count < self._row.request.min_new_tokens:
            made[:, list(self._row.ending)] = -np.inf
        return made

    def _carry_out(self) -> None:
        """Replace the lanes, their histories and the state by those of the moves, once these are
        fed.
        """
        moves = self._moves
        sources = [max(lane, 0) for lane in moves.lanes]
        history = self._history.rows(sources)
        new = [index for index, lane in enumerate(moves.lanes) if lane <= NEW_LANE]
        if new:
            history.put(new, start_history([self._row] * len(new)))
        for lane, source, tokens in zip(self._next, sources, moves.tokens, strict=True):
            after = lane.logits[:0]
            if lane.feed.logits is not None:
                after = to_numpy(lane.feed.logits)[0].copy()
            given = [*lane.logits, *after][-1 - len(tokens) :]
            lane.logits = after if len(after) else lane.logits
            self._feed_lane(lane, tokens, given, self.logits[source])
        for index in new:
            self._next[index].unnoted.clear()  # samplers do not see what it begins with
        keys = np.arange(len(sources), dtype=np.uint64) * np.uint64(_LANE)
        history.streams[:, 0] = np.uint64(self._row.request.seed) ^ splitmix(keys)
        history.streams[0, 0] = self._row.request.seed  # the first is that of sampling
        self._history, self._lanes = history, self._next
        self.state = {name: np.asarray(array) for name, array in moves.state.items()}

    def _feed_lane(
        self, lane: Lane, tokens: Sequence[int] | Ids, given: Sequence[Any], drawn: Any
    ) -> None:
        """Note what a lane was fed, with the logits before each token, and those by which the first
        was drawn.
        """
        for position, (token, logits) in enumerate(zip(map(int, tokens), given, strict=False)):
            if token == END:
                lane.reason = "end"
                break
            if (most := self._row.request.logprobs) is not None:
                lane.logprobs.append(TokenLogprobs.of(log_softmax(logits), token, most))
            lane.ids.append(token)
            lane.unnoted.append((token, logits if position else drawn))
            lane.reason = lane.reason or self._reason_to_end(lane)

    def _history_of(self, *indices: int) -> SequenceHistory:
        """The histories of some lanes, or of all, with all that they were fed."""
        lanes = [*indices] or range(len(self))
        while rows := [lane for lane in lanes if self._lanes[lane].unnoted]:
            tokens, logits = zip(*(self._lanes[lane].unnoted.pop(0) for lane in rows), strict=True)
            part = self._history.rows(rows)
            self._chain.note(np.array(tokens), np.array(logits), part)
            self._history.put(rows, part)
        return self._history.rows(lanes)

    def _hand_over(self, best: int, count: int) -> FinishReason | None:
        """Hand the first `count` tokens of a lane to the row, as far as it lacks them. Why the text
        ends with them, if it does.
        """
        row, lane = self._row, self._lanes[best]
        for position in range(self._shown, min(count, len(lane.ids))):
            token = lane.ids[position]
            reason = row.ends_with(token) or ("length" if row.left == 1 else None)
            row.logprobs += lane.logprobs[position : position + 1]
            row.add(np.array([token]))
            if reason is not None:
                return reason
        return lane.reason if count >= len(lane.ids) else None

    def _end(self, best: int, reason: FinishReason, count: int | None = None) -> None:
        """End the text with the first `count` tokens of a lane, or with all."""
        row, lane = self._row, self._lanes[best]
        ended = self._hand_over(best, len(lane.ids) if count is None else count)
        if row.request.keep_state:
            self._save(best, is_cut=reason in ("time", "cancelled"))
        row.reason = ended or reason

    def _save(self, best: int = 0, *, is_cut: bool) -> None:
        """Keep the state after those tokens of a lane that the row has, and the lanes too, unless
        they are ranked: a text that is cut off goes on with them.
        """
        row, strategy = self._row, dict[str, Any]()
        if row.resumed is not None and not self._next:  # as it was
            row.end = row.resumed
            return
        text = self._lanes[best].ids[: self._shown]
        have_begun_so = all(lane.begin or lane.ids[: len(text)] == text for lane in self._lanes)
        if have_begun_so and not row.ranked:
            lanes = tuple(self._saved_lane(lane, len(text), is_cut) for lane in self._lanes)
            strategy = {"strategy": self._source.name, "lanes": lanes, "memory": self.state}
        decoder, history = self._state_after(text)
        row.save(decoder, history.save_row(0), NO_IDS, **strategy)

    def _saved_lane(self, lane: Lane, shown: int, is_cut: bool) -> tuple[int, ...]:
        """A lane as GenerationState.lanes has it, without the tokens that are in its text."""
        end = [END] if lane.reason == "end" and is_cut else []
        return (lane.begin, *lane.ids[0 if lane.begin else shown :], *end)

    def _state_after(self, text: list[int]) -> tuple[Tensors, SequenceHistory]:
        """The state of the decoder and the history after the ids of the text: those of a lane that
        stands there, or else of a decoder that is fed the text anew.
        """
        factory = self._factories[0]
        for index, lane in enumerate(self._lanes):
            if not lane.begin and lane.ids == text:
                state = self._decoders.state(factory, lane.feed.rows[0])
                return state, self._history_of(index)
        decoder, history = self._row.restore(factory()), start_history([self._row])
        logits = factory.extend(decoder, self._row.to_feed()[None])
        for token in np.array(text, np.int64):
            self._chain.note(token[None], to_numpy(logits).copy(), history)
            logits = factory.extend(decoder, token[None, None])
        return decoder.read_state(), history

    def _reason_to_end(self, lane: Lane) -> FinishReason | None:
        """The reason to end the text with the last token of a lane, if there is one."""
        if (reason := self._row.ends_with(lane.ids[-1], lane.text)) is not None:
            return reason
        return "length" if len(lane.ids) - self._shown >= self._row.left else None

    def _fault(self, answer: Any) -> str:
        """The fault of an answer of the strategy, or ""."""
        if not isinstance(answer, Moves | Ranking):
            return f"{type(answer).__name__}, and must give Moves or a Ranking"
        count, most = len(answer.lanes), self._strategy.lanes
        if not 0 < count <= most:
            return f"{count} lanes, and announces 1 to {most} with its attribute lanes"
        if isinstance(answer, Ranking):
            least, ids = 0, []
            lengths = {len(answer.scores) or count}
        else:
            least = NEW_LANE - len(self._chain.others)
            if not all(isinstance(each, Sequence | np.ndarray) for each in answer.tokens):
                return f"tokens {answer.tokens!r}, and must give a sequence of ids for each lane"
            ids = [token for tokens in answer.tokens for token in tokens]
            lengths = {len(answer.tokens), *(len(np.atleast_1d(a)) for a in answer.state.values())}
        if lengths != {count}:
            return f"scores, tokens or a state that are not of {count} lanes"
        for numbers, first, end in (
            (answer.lanes, least, len(self._lanes)),
            (ids, END, self._chain.vocab_size),
        ):
            if fault := _outside(numbers, first, end):
                return fault
        first, sure = answer.lanes[0], self._lanes[0].ids[: self._shown]
        if sure and (first < 0 or self._lanes[first].ids[: len(sure)] != sure):
            return f"a first lane that does not begin with the {len(sure)} tokens that are final"
        return ""


def _outside(numbers: Sequence[int], least: int, end: int) -> str:
    """The number that is not one of a range; "" if all are."""
    wrong = [number for number in numbers if not least <= number < end]
    return f"{wrong[0]}, which is not from {least} to {end - 1}" if wrong else ""
