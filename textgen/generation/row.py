"""A text that is being made: its request, the tokens that came, and their text."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError, UsageError
from textgen.files.opening import UNFORESEEN
from textgen.generation.detokenise import TAIL, Detokeniser, Tail, drain
from textgen.generation.prompts import NO_IDS
from textgen.generation.request import Request, Settings
from textgen.generation.results import FinishReason, GenerationState, TokenLogprobs
from textgen.pipeline.options import DecodingOptions
from textgen.protocols import Ids, Tensors, Tokenizer

ENDLESS: Final = 1 << 60
_HISTORY: Final = "history."
_STATE: Final = "state."


@attrs.frozen(eq=False)
class RowState:
    """The state of a row of a batch.

    history   what the samplers read, and their states
    pending   ids that are not fed yet
    lengths   how many tokens prompt and text have
    """

    decoder: Tensors
    history: dict[str, Any]
    pending: Ids
    lengths: tuple[int, int]

    @classmethod
    def of(cls, state: GenerationState) -> RowState:
        """The state that a saved one holds."""
        arrays, values = state.arrays, state.values
        decoder, history = (
            {name.removeprefix(kind): a for name, a in arrays.items() if name.startswith(kind)}
            for kind in (_STATE, _HISTORY)
        )
        pending = np.array(values["pending"], np.int64)
        return cls(decoder, history, pending, tuple(values["lengths"]))

    def resume(self, decoder: Any) -> None:
        """Put a decoder into this state. Raises UsageError if it is not one of its model."""
        with reading_state():
            decoder.write_state(self.decoder)


@contextlib.contextmanager
def reading_state() -> Iterator[None]:
    """Turn whatever is wrong with a saved state, which anyone may have written, into a UsageError."""
    try:
        yield
    except TextgenError:
        raise
    except UNFORESEEN as error:
        cause = "the saved state does not fit the model and the samplers of this run"
        raise UsageError(f"{cause}: {error}", argument="state") from error


@attrs.define(eq=False)
class Row:
    """A text that is being made. One thread adds tokens, another may take them.

    index     of its random numbers
    ids       (T,) ids to feed, after those that `start` has pending
    deadline  a time of time.monotonic
    shown     text that comes before all else: the prompt, with `echo`
    whole     whether nothing is taken before its end
    """

    request: Request
    index: int
    ids: Ids
    start: RowState | None
    tokenizer: Tokenizer
    shown: str = ""
    whole: bool = False
    deadline: float | None = None
    made: int = 0
    reason: FinishReason | None = None
    error: BaseException | None = None
    end: RowState | None = None
    logprobs: list[TokenLogprobs] = attrs.field(factory=list)
    paused: bool = False
    taken: int = 0
    _text: Detokeniser | None = None
    _last: list[int] = attrs.field(factory=list)  # the ids that a saved state has as its tail
    _finished: bool = False
    _parts: list[Ids] = attrs.field(factory=list)

    @classmethod
    def begin(cls, tokenizer: Tokenizer, request: Request, index: int) -> Row:
        """A text of which nothing is made yet."""
        state = request.state
        start = None if state is None else RowState.of(state)
        made = cls(request, index, request.ids, start, tokenizer)
        if made.options.echo:
            given = request.prompt
            made.shown = tokenizer.decode(request.ids) if given is None else given
        return made

    @property
    def text(self) -> Detokeniser:
        """The text of its tokens, made when the first is: a text that never begins costs nothing."""
        if self._text is None:
            state, ids = self.request.state, self.request.ids
            is_open = state is not None and not len(ids)
            if state is not None:
                ids = np.concatenate([np.array(state.values["tail"], np.int64), ids])
            tail = Tail.of(self.tokenizer, ids, mid_character=is_open)
            self._last = tail.ids.tolist()
            self._text = Detokeniser(
                self.tokenizer,
                tail,
                stops=self.options.stops,
                min_tokens=self.options.min_new_tokens,
                open_end=str(state.values["open_end"]) if state is not None and is_open else "",
            )
        return self._text

    @property
    def settings(self) -> Settings:
        """The resolved options of the request."""
        return self.request.settings

    @property
    def options(self) -> DecodingOptions:
        """Those of them that have no part in sampling."""
        return self.request.settings.options

    @property
    def left(self) -> int:
        """How many tokens may still be added."""
        return ENDLESS if (most := self.options.max_new_tokens) is None else most - self.made

    @property
    def ended(self) -> bool:
        """Whether no more tokens come."""
        return self.reason is not None or self.error is not None

    @property
    def has_news(self) -> bool:
        """Whether there is something to take."""
        return self.ended or (bool(self._parts or self.shown) and not self.whole)

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the text has ended and all of it is taken."""
        if not self._finished:
            return None
        return "stop" if self._text is not None and self._text.stopped else self.reason

    def to_feed(self) -> Ids:
        """(T,) ids that the decoder needs before the first token can be drawn."""
        before = self.request.before if self.start is None else self.start.pending
        return np.concatenate([before, self.ids]) if len(before) else self.ids

    def start_clock(self) -> None:
        """Let its time limit run from now on."""
        _ = self.text  # made before another thread draws
        limit = self.options.time_limit
        self.deadline = None if limit is None else time.monotonic() + limit

    def out_of_time(self) -> FinishReason | None:
        """Why to end now, if the clock or the caller says so. What `cancelled` raises is its error."""
        try:
            if self.request.cancelled is not None and self.request.cancelled():
                return "cancelled"
        except FAILURES as error:
            self.error = error
            return None
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else None

    @property
    def ending(self) -> tuple[int, ...]:
        """The tokens that end the text, and cannot come before `min_new_tokens`."""
        stops, end = self.options.stop_tokens, self.settings.end_id
        return stops if end is None else (*stops, end)

    @property
    def may_stop(self) -> bool:
        """Whether a token can end the text."""
        return bool(self.ending or self.options.stops)

    def ends_with(self, token: int) -> FinishReason | None:
        """Why the text ends with this token, if it does. Each token is to be told once."""
        if token == self.settings.end_id:
            return "end"
        if token in self.options.stop_tokens:
            return "stop"
        return "stop" if self.text.searches and self.text.stop_at(token) else None

    def add(self, ids: Ids) -> None:
        """Note generated tokens."""
        self._parts.append(ids)
        self.made += len(ids)

    def resumes(self) -> bool:
        """Whether it paused because nobody read it, and is to be submitted again."""
        resumes, self.paused = self.paused, False
        return resumes

    def take(self) -> tuple[str, Ids]:
        """Text and tokens that were not taken yet. Whoever takes them then looks at `error`."""
        ended = self.ended  # before the tokens are taken: another thread may be adding some
        shown, self.shown = self.shown, ""
        if ended and not self.made and self.start is None and not self.request.keep_state:
            self._finished = True
            return shown, NO_IDS
        parts = drain(self._parts)
        ids = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else NO_IDS
        self.taken += len(ids)
        text = self.text
        unseen = NO_IDS if text.searches else ids  # else it has seen each as it was drawn
        if self.request.keep_state:
            self._last = (self._last + ids[-TAIL:].tolist())[-TAIL:]
        if ended and not self._finished:
            self._finished = True
            text.finish(unseen, hold_back=self.request.keep_state)
        else:
            text.feed(unseen)
        return shown + text.take(), ids

    def state(self, model_id: str) -> GenerationState | None:
        """The state at the end of the text, if it was to be kept."""
        end = self.end
        if end is None or not self._finished:
            return None
        arrays = {_STATE + name: array for name, array in end.decoder.items()}
        arrays |= {_HISTORY + name: np.asarray(array) for name, array in end.history.items()}
        values = {
            "seed": self.request.seed,
            "index": self.index,
            "pending": end.pending.tolist(),
            "lengths": list(end.lengths),
            "tail": self._last,
            "model": model_id,
            "sampling": dict(self.settings.sampling),
            "open_end": self.text.open_end,
        }
        return GenerationState(arrays, values)
