"""A text that is being made: its request, the tokens that came, and their text."""

from __future__ import annotations

import contextlib
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.checks import FAILURES
from textgen.generation.sampling.history import SequenceHistory
from textgen.generation.texts.detokenise import TAIL, Detokeniser, drain
from textgen.generation.texts.prompts import NO_IDS
from textgen.generation.texts.request import Request
from textgen.generation.texts.results import (
    FinishReason,
    GenerationState,
    RankedText,
    TokenLogprobs,
    reading_state,
)
from textgen.pipeline.options import MAX_SEED
from textgen.protocols import Array, Decoder, Ids, Tensors, Tokenizer

ENDLESS: Final = 1 << 60
_MAX_UNREAD: Final = 1 << 12  # tokens, and log-probabilities of likeliest ones, not taken yet


@attrs.define(eq=False)
class Row:
    """A text that is being made. One thread adds tokens, another may take them.

    index     of its random numbers
    ids       (T,) ids to feed, after the pending ones of `start`
    start     the state that it resumes from
    left      number of tokens that may still be added
    length    number of tokens since the prompt, those that were made before `start` among them
    shown     text that comes before all else: the prompt, with `echo`
    whole     whether nothing is taken before its end
    deadline  a time of time.monotonic
    end       the state at its end, if that is kept
    ranked    the texts among which a strategy chose, best first
    waits_for_reader  whether it paused since its reader is far behind, and submits it again
    taken     number of tokens that were taken
    began     a time of time.perf_counter: when it began, or went on after a pause
    """

    request: Request
    index: int
    ids: Ids
    start: GenerationState | None
    text: Detokeniser
    tokenizer: Tokenizer
    left: int
    length: int = 0
    shown: str = ""
    whole: bool = False
    deadline: float | None = None
    reason: FinishReason | None = None
    error: BaseException | None = None
    end: GenerationState | None = None
    logprobs: list[TokenLogprobs] = attrs.field(factory=list)
    ranked: list[RankedText] = attrs.field(factory=list)
    waits_for_reader: bool = False
    taken: int = 0
    began: float = 0.0
    _is_cancelled: bool = False
    _is_taken: bool = False
    _added: array[int] = attrs.field(factory=lambda: array("i"))

    @classmethod
    def begin(cls, tokenizer: Tokenizer, request: Request, index: int) -> Row:
        """A text of which nothing is made yet."""
        state, prompt = request.state, request.prompt
        ids = before = prompt.ids
        length, open_end = 0, ""
        if state is not None:
            before = np.concatenate([np.array(state.tail, np.int64), ids])
            if not prompt.text and not len(ids):
                length, open_end = state.made, state.open_end
        text = Detokeniser(
            tokenizer,
            before[-TAIL:],
            mid_character=length > 0,
            stops=request.stops,
            min_tokens=request.min_new_tokens - length,
            open_end=open_end,
            shown=prompt.held,
        )
        return cls(
            request,
            index % MAX_SEED,
            ids,
            state,
            text,
            tokenizer,
            ENDLESS if request.max_new_tokens is None else request.max_new_tokens,
            length,
            prompt.text if request.echo else "",
        )

    @property
    def is_sampled(self) -> bool:
        """Whether no strategy makes it."""
        return self.request.chain.strategy is None

    @property
    def lanes(self) -> int:
        """The most rows of a decoder that it takes."""
        return self.request.chain.lanes

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of its prompt are asked for."""
        return self.request.echo and self.request.logprobs is not None

    @property
    def ended(self) -> bool:
        """Whether no more tokens come."""
        return self.reason is not None or self.error is not None

    @property
    def has_news(self) -> bool:
        """Whether there is something to take, or the row waits for its reader, who may have taken
        all just before it paused.
        """
        has_more = bool(self._added or self.shown) and not self.whole
        return self.ended or self.waits_for_reader or has_more

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the text has ended and all of it is taken."""
        return ("stop" if self.text.stopped else self.reason) if self._is_taken else None

    @property
    def before(self) -> Ids:
        """(N,) ids to feed before `ids`."""
        if self.start is None:
            return self.request.prompt.before
        return np.array(self.start.pending, np.int64)

    def to_feed(self) -> Ids:
        """(T,) ids that the decoder needs before the first token can be drawn."""
        return np.concatenate([self.before, self.ids])

    @property
    def resumed(self) -> GenerationState | None:
        """The state that it resumes from as if it had never stopped, with no prompt added."""
        return None if len(self.ids) else self.start

    @property
    def priming(self) -> Ids:
        """(N,) ids that a lane without the prompt begins after."""
        if self.resumed is None:
            return self.request.prompt.before
        return np.array(self.resumed.priming, np.int64)

    def restore(self, decoder: Decoder) -> Decoder:
        """A decoder of one row at the start state, put into the state that the text resumes from if
        there is one.
        """
        if self.start is not None:
            with reading_state():
                decoder.write_state(self.start.decoder)
        return decoder

    def start_clock(self, began: float | None = None) -> None:
        """Let its time limit run from now on, or from a time of time.monotonic, unless it runs
        already.
        """
        if (limit := self.request.time_limit) is not None and self.deadline is None:
            self.deadline = limit + (time.monotonic() if began is None else began)

    def cancel(self) -> None:
        """End it at the next step, from any thread."""
        self._is_cancelled = True

    def out_of_time(self) -> FinishReason | None:
        """The reason to end now, if the clock or the caller says so.

        What `cancelled` raises is its error, and so is the end of its generator.
        """
        try:
            self.request.chain.components.check_use()
            asked = self.request.cancelled
            if self._is_cancelled or (asked is not None and asked()):
                return "cancelled"
        except BaseException as error:
            self.error = error
            return None
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else None

    @property
    def ending(self) -> tuple[int, ...]:
        """The tokens that end the text, and cannot come while it `is_early`."""
        stops, end = self.request.stop_tokens, self.request.end_id
        return stops if end is None else (*stops, end)

    def open(self, logits: Array) -> None:
        """Leave in logits (V,) of the first token what can come first."""
        if not self.length:
            self.request.prompt.open(logits)

    @property
    def is_early(self) -> bool:
        """Whether no token may end the text yet."""
        return self.length < self.request.min_new_tokens

    @property
    def may_end(self) -> bool:
        """Whether a token can end the text."""
        return bool(self.ending or self.request.stops)

    def ends_with(self, token: int, text: Detokeniser | None = None) -> FinishReason | None:
        """The reason why the text, or one of its lanes, ends with this token, if it does. Tell it
        each token once.
        """
        text = text or self.text
        stops = text.searches and text.stop_at(token)
        if token == self.request.end_id:
            return "end"
        return "stop" if stops or token in self.request.stop_tokens else None

    def add(self, ids: Ids) -> None:
        """Note generated tokens."""
        self._added.extend(ids.tolist())
        self.length += len(ids)
        self.left -= len(ids)

    def pause(self) -> None:
        """Resume from the state that was saved last, once it is submitted again."""
        self.start, self.end, self.ids = self.end, None, NO_IDS

    @property
    def is_far_behind(self) -> bool:
        """Whether its reader is, so that what is not taken yet needs much memory."""
        sizes = 1 + (self.request.logprobs or 0)
        return not self.whole and len(self._added) * sizes > _MAX_UNREAD

    def take(self) -> tuple[str, Ids]:
        """Text and tokens that were not taken yet. Whoever takes them then looks at `error`."""
        ended = self.ended  # before the tokens are taken: another thread may be adding some
        shown, self.shown = self.shown, ""
        ids = np.array(drain(self._added), np.int64)
        self.taken += len(ids)
        unseen = NO_IDS if self.text.searches else ids  # else it has seen each as it was drawn
        if ended and not self._is_taken:
            self._is_taken = True
            self.text.flush(unseen, hold_back=self.request.keep_state)
        else:
            self.text.feed(unseen)
        return shown + self.text.take(), ids

    def save(self, decoder: Tensors, history: Tensors, pending: Ids, **strategy: Any) -> None:
        """Note the state after its tokens, with what a strategy goes on with."""
        self.end = GenerationState(
            decoder=decoder,
            history=history,
            pending=tuple(pending.tolist()),
            priming=tuple(self.priming.tolist()),
            **strategy,
        )

    def state(self, model_id: str) -> GenerationState | None:
        """The state at the end of the text, if it was to be kept."""
        if self.end is None or not self._is_taken:
            return None
        return attrs.evolve(
            self.end,
            seed=self.request.seed,
            index=self.index,
            model=model_id,
            tail=tuple(self.text.tail),
            open_end=self.text.open_end,
            made=self.length,
            held=not self.length and self.request.prompt.held == 1,
        )


def start_history(rows: Sequence[Row]) -> SequenceHistory:
    """The history of rows of one chain that have drawn nothing yet."""
    history = rows[0].request.chain.begin(
        [row.ids for row in rows], [(row.request.seed, row.index) for row in rows]
    )
    for index, row in enumerate(rows):
        if row.start is not None:
            with reading_state():
                history.load_row(index, row.start.history)
    return history


@contextlib.contextmanager
def failing(rows: Sequence[Row]) -> Iterator[None]:
    """Make what goes wrong in the block the error of the rows."""
    try:
        yield
    except FAILURES as error:
        for row in rows:
            if not row.ended:
                row.error = error
