"""Texts that a strategy makes of lanes: rows of a decoder that fork, wait and are dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.contracts.decoders import DecoderFactory, Decoders, Feed
from textgen.data import splitmix
from textgen.errors import ContractError, UsageError
from textgen.generation.chain import END
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import (
    FinishReason,
    RankedText,
    TokenLogprobs,
    reading_state,
)
from textgen.generation.row import Row, failing, start_history
from textgen.generation.sampling import SequenceHistory, log_softmax, step_numbers, to_numpy
from textgen.protocols import NEW_LANE, Array, Floats, Ids, Moves, Ranking, Tensors

_LANE: Final = 0xD1B54A32D192ED03  # times its place, it keys the random numbers of a lane
_STRATEGY: Final = 2**32 + 1  # in place of a sampler's place, as that of the draw


@attrs.define(eq=False)
class Lane:
    """A way in which a text may continue.

    row        its place in the decoder of its model
    begin      what it continues, as in Moves.lanes: 0 is the prompt, with the text so far
    logits     (T, V) after each of the tokens that it was fed last, at least one row
    ids        that it was fed since then
    reason     why the text would end here, if it would
    logprobs   of the ids, if the request asks for them
    unnoted    the last ids and the logits (V,) before each, which its history lacks: samplers see
               a drafted token only once something is to be drawn after it
    """

    factory: DecoderFactory
    row: int = 0
    begin: int = 0
    logits: npt.NDArray[Any] = attrs.field(default=np.empty((0, 0)), repr=False)
    ids: list[int] = attrs.field(factory=list)
    reason: FinishReason | None = None
    logprobs: list[TokenLogprobs] = attrs.field(factory=list)
    unnoted: list[tuple[int, npt.NDArray[Any]]] = attrs.field(factory=list)

    def fork(self) -> Lane:
        """A copy that goes its own way."""
        return attrs.evolve(
            self,
            logits=self.logits[-1:],
            ids=self.ids[:],
            logprobs=self.logprobs[:],
            unnoted=self.unnoted[:],
        )


class StrategyText:
    """textgen.protocols.Lanes: a text of a strategy, its lanes, and what samplers and strategy know
    of each.
    """

    logits: npt.NDArray[Any]

    def __init__(self, factory: DecoderFactory, row: Row, place: int) -> None:
        self._row, self._chain = row, row.request.chain
        assert self._chain.strategy is not None
        self._strategy, self._source = self._chain.strategy
        self._factories = (factory, *self._chain.others)
        self._lanes = [Lane(factory, place)]
        self._history: SequenceHistory = start_history([row])
        self.state: Tensors = {}
        start: Tensors = getattr(self._strategy, "start", dict)()
        self._moves = Moves([0], [()], {name: np.asarray(a)[None] for name, a in start.items()})
        self._feeds: list[Feed] = []

    @property
    def rows(self) -> list[Row]:
        """The text, until it ends."""
        return [] if self._row.ended else [self._row]

    @property
    def places(self) -> Ids:
        """(1,) the row of the first lane."""
        return np.array([self._lanes[0].row])

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def prompt(self) -> Ids:
        """(N,) ids of the prompt."""
        return self._row.request.prompt.ids

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
        made = to_numpy(self._chain.sampled(self.logits.copy(), self._noted(range(len(self)))))
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(log_softmax(made), nan=-np.inf, neginf=-np.inf)

    def draw(self, logits: npt.NDArray[Any] | None = None) -> Ids:
        """(L,) a token for each lane, drawn as sampling draws it; -1 where a sampler ends it.

        Logits (L, V) replace those of the model, and go through the sampler chain too.
        """
        if logits is not None:
            self.logits = logits.astype(self.logits.dtype)
        history = self._noted(range(len(self)))
        return self._chain.pick(self.logits.copy(), history, history.numbers()[:, 0])

    def verify(self, lane: int) -> Ids:
        """(N,) the tokens that sampling draws after a lane, as long as the first lane was fed the
        same from there on, and the one after them; -1 where a sampler ends the text.
        """
        history, made = self._noted([lane]), list[int]()
        history.streams[0, 0] = self._row.request.seed
        first, sure = self._lanes[0], self._lanes[lane]
        drafted = first.ids[len(sure.ids) :]
        if len(drafted) > len(first.logits):
            raise ValueError(f"the first lane was not fed what follows lane {lane} in one step")
        after = first.logits[len(first.logits) - len(drafted) :]
        for place, logits in enumerate([sure.logits[-1], *after]):
            allowed = self._allowed(logits[None], len(sure.ids) + place)
            token = int(self._chain.pick(allowed, history, history.numbers()[:, 0])[0])
            made.append(token)
            if drafted[place : place + 1] != [token]:
                break
        return np.array(made)

    def random(self, count: int = 1) -> Floats:
        """(L, count) random numbers from [0, 1), by seed, index, step and lane."""
        history = self._noted(range(len(self)))
        return step_numbers(history.streams, history.lengths, _STRATEGY, count)

    def begin(self, logits: Array, decoders: Decoders) -> bool:
        """Note the logits (1, V) after the prompt, and begin with the lanes of a saved state."""
        self._lanes[0].logits = self.logits = to_numpy(logits).copy()
        self._row.open(self.logits[0])
        saved = self._row.resumed
        if saved is not None and saved.strategy == self._source.name:
            with failing([self._row]), reading_state():
                begins, tokens = zip(*((begin, ids) for begin, *ids in saved.lanes), strict=True)
                self._moves = Moves(begins, tokens, saved.memory)
                if fault := self._fault(self._moves):
                    raise UsageError(f"the saved state has {fault}", argument="state")
        return self._row.ended

    def feeds(self) -> list[Feed]:
        """Feeds of the moves."""
        before = self._row.request.prompt.before.tolist()
        self._feeds = []
        for source, tokens in zip(self._moves.lanes, self._moves.tokens, strict=True):
            ids = [*(before if source <= NEW_LANE else ()), *(i for i in tokens if i != END)]
            factory = self._factories[max(NEW_LANE - source, 0)]
            rows = None
            if source > NEW_LANE:
                factory, rows = self._lanes[source].factory, np.array([self._lanes[source].row])
            self._feeds.append(Feed(factory, rows, np.array([ids], np.int64)))
        return self._feeds

    def step(self, decoders: Decoders) -> bool:
        """Carry out the moves, once they are fed, and ask for the next. Whether the text ends."""
        with failing([self._row]):
            self._continue()
            if (reason := self._emit(0, self._moves.final or 0)) is not None:
                self._end(0, reason, decoders, 0)
            else:
                self._ask(decoders)
        return self._row.ended

    def end_overdue(self, decoders: Decoders) -> bool:
        """End the text if its time is over or its caller ends it. Whether it ends."""
        with failing([self._row]):
            if (reason := self._row.out_of_time()) is not None:
                sure = self._row.made if self._row.request.keep_state else self._moves.final
                self._end(0, reason, decoders, sure)
        return self._row.ended

    def flush(self) -> None:
        """Do nothing: the row has tokens once they are final."""

    def absorb(self, other: object) -> bool:
        """False: each text has its own lanes."""
        return False

    def split(self, rows: Collection[Row]) -> list[StrategyText]:
        """The text, if it is among some."""
        return [self] if self._row in rows and not self._row.ended else []

    def settle(self, decoders: Decoders) -> None:
        """Leave in decoders the rows of the lanes alone."""
        feeds = [Feed(lane.factory, np.array([lane.row]), NO_IDS[None]) for lane in self._lanes]
        decoders.feed(feeds)
        for lane, feed in zip(self._lanes, feeds, strict=True):
            lane.row = feed.place

    def shift(self, places: Mapping[DecoderFactory, int]) -> None:
        """Note that the rows stand after so many others of their models."""
        for lane in self._lanes:
            lane.row += places[lane.factory]

    def _ask(self, decoders: Decoders) -> None:
        """Ask the strategy for its next moves, and check them."""
        allowed = [self._allowed(lane.logits[-1:], len(lane.ids)) for lane in self._lanes]
        self.logits = np.concatenate(allowed)
        made = self._strategy.step(self)
        if fault := self._fault(made):
            raise ContractError(self._source, f"gave from step {fault}")
        if isinstance(made, Moves):
            self._moves = made
        else:
            self._rank(made)
            best = made.lanes[0]
            self._end(best, self._lanes[best].reason or "length", decoders)

    def _allowed(self, logits: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        """Logits (1, V) without what may not follow so many tokens."""
        made = logits.copy()
        made[:, list(self._chain.forbidden)] = -np.inf
        if self._row.earlier + count < self._row.request.min_new_tokens:
            made[:, list(self._row.ending)] = -np.inf
        return made

    def _continue(self) -> None:
        """Make the lanes, their histories and the state those of the moves, which are fed."""
        moves = self._moves
        sources = [max(lane, 0) for lane in moves.lanes]
        history = self._history.rows(sources)
        if new := [place for place, lane in enumerate(moves.lanes) if lane <= NEW_LANE]:
            history.put(new, start_history([self._row] * len(new)))
        lanes = list[Lane]()
        for source, tokens, feed in zip(moves.lanes, moves.tokens, self._feeds, strict=True):
            if source > NEW_LANE:
                lane = self._lanes[source].fork()
            else:
                lane = Lane(feed.factory, begin=source)
            lane.row = feed.place
            after = lane.logits[:0] if feed.logits is None else to_numpy(feed.logits)[0].copy()
            given = [*lane.logits, *after][-1 - len(tokens) :]
            lane.logits = after if len(after) else lane.logits
            self._add(lane, tokens, given, self.logits[max(source, 0)])
            lanes.append(lane)
        keys = np.arange(len(sources), dtype=np.uint64) * np.uint64(_LANE)
        history.streams[:, 0] = np.uint64(self._row.request.seed) ^ splitmix(keys)
        history.streams[0, 0] = self._row.request.seed  # the first is that of sampling
        self._history, self._lanes = history, lanes
        self.state = {name: np.asarray(array) for name, array in moves.state.items()}

    def _add(
        self, lane: Lane, tokens: Sequence[int] | Ids, given: Sequence[Any], drawn: Any
    ) -> None:
        """Note what a lane was fed, with the logits before each token, and those by which the first
        was drawn.
        """
        for place, (token, logits) in enumerate(zip(map(int, tokens), given, strict=False)):
            if token == END:
                lane.reason = "end"
                break
            if (most := self._row.request.logprobs) is not None:
                lane.logprobs.append(TokenLogprobs.of(log_softmax(logits), token, most))
            lane.ids.append(token)
            lane.unnoted.append((token, logits if place else drawn))
            lane.reason = lane.reason or self._reason(lane.ids)

    def _noted(self, lanes: Sequence[int]) -> SequenceHistory:
        """The histories of lanes, with all that they were fed."""
        while rows := [lane for lane in lanes if self._lanes[lane].unnoted]:
            tokens, logits = zip(*(self._lanes[lane].unnoted.pop(0) for lane in rows), strict=True)
            part = self._history.rows(rows)
            self._chain.note(np.array(tokens), np.array(logits), part)
            self._history.put(rows, part)
        return self._history.rows(lanes)

    def _emit(self, best: int, count: int) -> FinishReason | None:
        """Hand the first `count` tokens of a lane to the row, as far as it lacks them. Why the text
        ends with them, if it does.
        """
        row, lane = self._row, self._lanes[best]
        ids, reason = list[int](), None
        for token in lane.ids[row.made : count]:
            ids.append(token)
            reason = row.ends_with(token) or ("length" if len(ids) >= row.left else None)
            if reason is not None:
                break
        row.logprobs += lane.logprobs[row.made : row.made + len(ids)]
        if ids:
            row.add(np.array(ids))
        return reason or (lane.reason if count >= len(lane.ids) else None)

    def _rank(self, ranking: Ranking) -> None:
        """Keep the ranked texts."""
        scores = [float(score) for score in ranking.scores] or [0.0] * len(ranking.lanes)
        for lane, score in zip(ranking.lanes, scores, strict=True):
            ids = self._lanes[lane].ids
            text = self._row.tokenizer.decode(np.array(ids, np.int64))
            self._row.ranked.append(RankedText(text, tuple(ids), score))

    def _end(
        self, best: int, reason: FinishReason, decoders: Decoders, count: int | None = None
    ) -> None:
        """End the text with the first `count` tokens of a lane, or with all."""
        row, lane = self._row, self._lanes[best]
        ended = self._emit(best, len(lane.ids) if count is None else count)
        if row.request.keep_state:
            self._save(lane.ids[: row.made], reason, decoders)
        row.reason = ended or reason

    def _save(self, text: list[int], reason: FinishReason, decoders: Decoders) -> None:
        """Keep the state after the ids of the text, and the lanes if they have that beginning; none
        that were ranked.
        """
        row, factory, saved = self._row, self._factories[0], dict[str, Any]()
        places = [i for i, lane in enumerate(self._lanes) if not lane.begin and lane.ids == text]
        if places:
            decoder = decoders.state(factory, self._lanes[places[0]].row)
            history = self._noted(places[:1])
        else:  # no lane stands there
            fed, history = row.restore(factory()), start_history([row])
            logits = factory.extend(fed, row.to_feed()[None])
            for token in np.array(text, np.int64):
                self._chain.note(token[None], to_numpy(logits).copy(), history)
                logits = factory.extend(fed, token[None, None])
            decoder = fed.read_state()
        lanes = list[tuple[int, ...]]()
        for lane in self._lanes:
            end = [END] if lane.reason == "end" and reason in ("time", "cancelled") else []
            begin = 0 if lane.begin else len(text)
            if lane.ids[:begin] == text[:begin] and not row.ranked:
                lanes.append((lane.begin, *lane.ids[begin:], *end))
        if len(lanes) == len(self):
            saved = {"strategy": self._source.name, "lanes": tuple(lanes), "memory": self.state}
        row.save(decoder, history.save_row(0), NO_IDS, **saved)

    def _reason(self, ids: list[int]) -> FinishReason | None:
        """The reason to end the text with these ids, if there is one."""
        request, token = self._row.request, ids[-1]
        if token == request.end_id:
            return "end"
        if token in request.stop_tokens:
            return "stop"
        if request.stops:
            counted = ids[max(0, request.min_new_tokens - self._row.earlier) :][
                -max(map(len, request.stops)) - 8 :
            ]
            text = self._row.tokenizer.decode(np.array(counted, np.int64))
            if any(stop in text for stop in request.stops):
                return "stop"
        most = request.max_new_tokens
        return "length" if most is not None and len(ids) >= most else None

    def _fault(self, made: Any) -> str:
        """The fault of an answer of the strategy, or ""."""
        if isinstance(made, Ranking):
            if not made.lanes or len(made.scores) not in (0, len(made.lanes)):
                return "a ranking without lanes, or with another number of scores"
            return _outside(made.lanes, 0, len(self._lanes))
        if not isinstance(made, Moves):
            return f"{type(made).__name__}, and must give Moves or a Ranking"
        count, most = len(made.lanes), self._strategy.lanes
        if not 0 < count <= most:
            return f"{count} lanes, and announces 1 to {most} with its attribute lanes"
        if {count} != {len(made.tokens), *(len(np.atleast_1d(a)) for a in made.state.values())}:
            return f"tokens or a state that are not of {count} lanes"
        ids = [token for tokens in made.tokens for token in tokens]
        least, size = NEW_LANE - len(self._chain.others), self._chain.vocab_size
        return _outside(made.lanes, least, len(self._lanes)) or _outside(ids, END, size)


def _outside(numbers: Sequence[int], least: int, end: int) -> str:
    """The number that is not one of a range; "" if all are."""
    wrong = [number for number in numbers if not least <= number < end]
    return f"{wrong[0]}, which is not from {least} to {end - 1}" if wrong else ""
