"""One sequence that is generated: what was asked for, and what has come of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts.checks import FAILURES
from textgen.errors import TextgenError, UsageError
from textgen.files.opening import UNFORESEEN
from textgen.generation.chain import Chain
from textgen.generation.detokenise import Tail, drain
from textgen.generation.prompts import NO_IDS
from textgen.generation.results import FinishReason, GenerationState, TokenLogprobs
from textgen.pipeline.options import DecodingOptions
from textgen.protocols import Ids, Tensors

ENDLESS: Final = 1 << 60


@attrs.frozen(eq=False)
class RowState:
    """Where a row stands.

    history   what the samplers read, and their states
    position  in the random numbers
    pending   ids that are not fed yet
    lengths   how many tokens prompt and text have
    """

    decoder: Tensors
    history: dict[str, Any]
    position: int
    pending: Ids
    lengths: tuple[int, int]

    def resume(self, decoder: Any) -> None:
        """Put a decoder into this state. Raises UsageError where it is none of its model: anyone may have saved it."""
        with taken_in():
            decoder.write_state(self.decoder)


@contextlib.contextmanager
def taken_in() -> Iterator[None]:
    """Take a state in. What is unforeseen about it becomes a UsageError."""
    try:
        yield
    except TextgenError:
        raise
    except UNFORESEEN as error:
        cause = "the saved state does not fit the model and the samplers of this run"
        raise UsageError(f"{cause}: {error}", argument="state") from error


@attrs.frozen(eq=False)
class Settings:
    """What the options of a request come to in its run.

    chain     the samplers; rows of one chain are sampled together
    sampling  the options that `chain` was changed by, as JSON values
    top       log-probabilities to note; None: none
    end_id    the token by which the model ends the text
    """

    decoding: DecodingOptions
    chain: Chain
    sampling: Mapping[str, Any]
    top: int | None
    end_id: int | None


@attrs.frozen(eq=False)
class Asked:
    """A request, checked.

    prompt  its text
    ids     (T,) of the prompt
    before  what is fed before them where there is no `state` (see document_start)
    tail    of the ids
    index   None: its place among many
    """

    prompt: str
    ids: Ids
    before: Ids
    tail: Tail
    settings: Settings
    seed: int
    index: int | None
    cancelled: Callable[[], bool] | None
    state: GenerationState | None
    keep_state: bool


@attrs.define(eq=False)
class Row:
    """A sequence to generate, and what has come of it.

    prompt    (T,) ids to feed, after those that `start` has pending
    deadline  a time of time.monotonic
    stop_at   is told each token, and says whether the text ends with it
    """

    asked: Asked
    index: int
    prompt: Ids = attrs.field(kw_only=True)
    stop_at: Callable[[int], bool] | None = attrs.field(kw_only=True)
    start: RowState | None = attrs.field(kw_only=True)
    deadline: float | None = None
    made: int = 0
    reason: FinishReason | None = None
    error: BaseException | None = None
    end: RowState | None = None
    logprobs: list[TokenLogprobs] = attrs.field(factory=list)
    base: int = 0  # the place of column 0 of the present block in the random numbers
    earlier: int = 0  # how many tokens were made before those that `made` counts
    paused: bool = False
    taken: int = 0
    _parts: list[Ids] = attrs.field(factory=list)  # appended to by one thread, emptied by another

    @property
    def settings(self) -> Settings:
        """What the options of the request come to."""
        return self.asked.settings

    @property
    def decoding(self) -> DecodingOptions:
        """Those of the options that have no part in sampling."""
        return self.asked.settings.decoding

    @property
    def left(self) -> int:
        """How many tokens it may add still."""
        return ENDLESS if (most := self.decoding.max_new_tokens) is None else most - self.made

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.reason is not None or self.error is not None

    def begin(self) -> None:
        """Start the clock."""
        limit = self.decoding.time_limit
        self.deadline = None if limit is None else time.monotonic() + limit

    @property
    def prompt_length(self) -> int:
        """How many tokens the prompt has, with that of `start`."""
        return len(self.prompt) + (0 if self.start is None else self.start.lengths[0])

    def to_feed(self) -> Ids:
        """(T,) ids that the decoder needs before the first token can be drawn."""
        before = self.asked.before if self.start is None else self.start.pending
        return np.concatenate([before, self.prompt]) if len(before) else self.prompt

    def add(self, ids: Ids) -> None:
        """Note generated tokens."""
        self._parts.append(ids)
        self.made += len(ids)

    def take(self) -> Ids:
        """The tokens that were not taken yet."""
        parts = drain(self._parts)
        ids: Ids = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else NO_IDS
        self.taken += len(ids)
        return ids

    @property
    def has_news(self) -> bool:
        """Whether there is something to take."""
        return bool(self._parts) or self.ended

    def resumes(self) -> bool:
        """Whether a row that paused because nobody read it is to be submitted again."""
        resumes, self.paused = self.paused, False
        return resumes

    def out_of_time(self) -> FinishReason | None:
        """Why to end now, if the clock or the caller says so. What the caller's `cancelled` raises is its error."""
        try:
            if self.asked.cancelled is not None and self.asked.cancelled():
                return "cancelled"
        except FAILURES as error:
            self.error = error
            return None
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else None

    @property
    def ending(self) -> tuple[int, ...]:
        """The tokens that end the text, and cannot come before `min_new_tokens`."""
        stops, end = self.decoding.stop_tokens, self.settings.end_id
        return stops if end is None else (*stops, end)

    @property
    def may_stop(self) -> bool:
        """Whether a token can end the text."""
        return bool(self.ending) or self.stop_at is not None

    def ends_with(self, token: int) -> FinishReason | None:
        """Why the text ends with this token, if it does."""
        if token == self.settings.end_id:
            return "end"
        stops = token in self.decoding.stop_tokens or (
            self.stop_at is not None and self.stop_at(token)
        )
        return "stop" if stops else None
